"""The descriptor model of a weights file, ready to describe pictures, without the settings of its training."""

from dataclasses import dataclass
from pathlib import Path

import torch

from isc_jobs.spec.errors import DataError
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import LARGEST_SIZE, Model
from isc_jobs.training.checkpoint import Checkpoint, Misfit, check_finite, find_misfit, open_checkpoint
from isc_jobs.vision.model import DescriptorModel, resolve_backbone

_LEAST_SIZE = 32
_LARGEST_POWER = 1e6  # of GeM; 3 is usual
_HEAD = "fc.weight"  # (dimensions, channels)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What describing needs beside tensors."""

    arch: str  # timm's present name
    dimensions: int
    input_size: int  # pixels a side
    gem_p: float


def read_facts(checkpoint: Checkpoint, arch: str | None = None, input_size: int | None = None) -> ModelFacts:
    """Facts as given, else as the file's arch and args say, else of the profile isc21.

    Raises DataError for tensors without a head and for impossible values of args.
    """
    settings, args = load_settings("isc21"), checkpoint.args
    size = input_size or args.get("input_size", settings.extract.input_size)
    gem_p = args.get("gem_eval_p", settings.model.gem_eval_p)
    if not isinstance(size, int) or not _LEAST_SIZE <= size <= LARGEST_SIZE:
        raise DataError(
            f"the weights' args.input_size is {size!r}, expected {_LEAST_SIZE} to {LARGEST_SIZE}: give --input-size"
        )
    if not isinstance(gem_p, int | float) or not 0 < gem_p <= _LARGEST_POWER:
        raise DataError(
            f"the weights' args.gem_eval_p is {gem_p!r}, expected a number above 0, at most {_LARGEST_POWER:g}"
        )
    return ModelFacts(
        arch=resolve_backbone(arch or checkpoint.arch or settings.model.backbone), dimensions=dimensions(checkpoint),
        input_size=size, gem_p=float(gem_p),
    )  # fmt: skip


def dimensions(checkpoint: Checkpoint) -> int:
    """Of a descriptor; raises DataError if the tensors have no head."""
    head = checkpoint.tensors.get(_HEAD)
    if head is None or head.dim() != 2:
        raise DataError(f"the weights hold no {_HEAD} of (dimensions, channels): they are no descriptor model's")
    return len(head)


def misfit(checkpoint: Checkpoint, facts: ModelFacts) -> Misfit:
    """What keeps the tensors from loading strictly into the model of ``facts``."""
    with torch.device("meta"):
        model = DescriptorModel(facts.arch, facts.dimensions, facts.gem_p)
    return find_misfit(model, checkpoint.tensors)


def explain(names: Misfit, checkpoint: Checkpoint, facts: ModelFacts, arch: str | None) -> str:
    """Why tensors do not load into the model of ``facts``; ``arch``: as given."""
    if arch is None and checkpoint.arch is None:
        return f"the file names no architecture and {facts.arch} was assumed, give its own with --arch: {names}"
    return f"into {facts.arch}: {names}"


def check_fits(path: Path, model: Model) -> None:
    """Raises DataError for weights that do not load strictly into the model of the settings."""
    checkpoint = open_checkpoint(path)
    with torch.device("meta"):
        wanted = DescriptorModel(model.backbone, model.dimensions, model.gem_p)
    names = find_misfit(wanted, checkpoint.tensors)
    if names:
        other = checkpoint.arch is not None and resolve_backbone(checkpoint.arch) != resolve_backbone(model.backbone)
        raise DataError(
            f"weights {path} are of {checkpoint.arch or 'a model they do not name'}, the settings' is {model.backbone} "
            f"with {model.dimensions} dimensions: give others, or set model.backbone and model.dimensions"
            + ("" if other else f"; {names}")
        )


def load_model(
    path: Path, arch: str | None = None, input_size: int | None = None
) -> tuple[DescriptorModel, ModelFacts]:  # fmt: skip
    """The model of a weights file on the CPU, in evaluation mode; errors as of ``read_facts`` and strict loading."""
    checkpoint = open_checkpoint(path)
    facts = read_facts(checkpoint, arch, input_size)
    model = DescriptorModel(facts.arch, facts.dimensions, facts.gem_p)
    names = find_misfit(model, checkpoint.tensors)
    if names:
        raise DataError(f"weights {path.name} do not load: {explain(names, checkpoint, facts, arch)}")
    check_finite(path, checkpoint.tensors)
    model.load_state_dict(checkpoint.tensors)
    return model.eval(), facts
