"""isc-jobs checkpoint: what is in a weights file, and the same in another layout."""

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.training.checkpoint import Checkpoint, open_checkpoint, with_prefix, write_safetensors
from isc_jobs.training.inference import ModelFacts, explain, misfit, read_facts
from isc_jobs.vision.model import DescriptorModel

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_SECRET = re.compile(r"secret|token|passw|passphrase|credential|(api|access|private)_?key|auth(?!or)", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(?<=\S)\?\S*(?=\s|$)")
_HIDDEN = "(hidden)"


def inspect_file(path: Path, arch: str | None = None) -> dict[str, Any]:
    """What a weights file holds, as plain values; errors as of ``open_checkpoint``."""
    checkpoint = open_checkpoint(path)
    found: dict[str, Any] = {
        "file": str(path), "layout": checkpoint.layout, "epoch": checkpoint.epoch, "arch": checkpoint.arch,
        "tensors": len(checkpoint.tensors), "parameters": _parameters(checkpoint),
        "optimizer": bool(checkpoint.optimizer), "args": shown_args(checkpoint.args),
    }  # fmt: skip
    try:
        facts = read_facts(checkpoint, arch)
        names = misfit(checkpoint, facts)
    except (DataError, UsageError) as error:
        return found | {"loads": False, "reason": str(error)}
    model = {"resolved_arch": facts.arch, "dimensions": facts.dimensions, "input_size": facts.input_size}
    listed = {"missing": names.missing, "unexpected": names.unexpected, "misshapen": names.misshapen,
              "mistyped": names.mistyped}  # fmt: skip
    return (
        found
        | model
        | {"loads": not names, "reason": explain(names, checkpoint, facts, arch) if names else ""}
        | listed
    )


def _parameters(checkpoint: Checkpoint) -> int:
    return sum(tensor.numel() for name, tensor in checkpoint.tensors.items() if not name.endswith(_STATISTICS))


def shown_args(value: Any, name: str = "") -> Any:
    """Args for people: what a name or an address says is secret is left out."""
    if _SECRET.search(name) and value not in (None, False, True, "", 0):
        return _HIDDEN
    if isinstance(value, dict):
        return {key: shown_args(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [shown_args(inner) for inner in value]
    if isinstance(value, str) and "://" in value:
        return _QUERY.sub("?" + _HIDDEN, _LOGIN.sub(_HIDDEN + "@", value))
    return value


def convert_file(path: Path, out: Path, arch: str | None = None) -> ModelFacts:
    """Write ``path`` in the layout of ``out``'s suffix, in the model's order of names; what the model is.

    Raises UsageError for another suffix, DataError for tensors that do not load strictly into the model.
    """
    write = _writer(out)
    if not out.parent.is_dir():
        raise UsageError(f"{out}: {out.parent} is not a folder: make it first")
    checkpoint = open_checkpoint(path)
    facts = read_facts(checkpoint, arch)
    names = misfit(checkpoint, facts)
    if names:
        raise DataError(f"weights {path.name} do not load: {explain(names, checkpoint, facts, arch)}")
    with torch.device("meta"):
        order = list(DescriptorModel(facts.arch, facts.dimensions, facts.gem_p).state_dict())
    named = checkpoint.arch if arch is None and checkpoint.arch is not None else facts.arch
    converted = replace(checkpoint, arch=named, tensors={name: checkpoint.tensors[name] for name in order})
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        write(temporary, converted)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return facts


def _writer(out: Path) -> Callable[[Path, Checkpoint], None]:
    if out.name.endswith(".pth.tar"):
        return _write_original
    if out.suffix in {".pth", ".pt"}:
        return _write_bare
    if out.suffix == ".safetensors":
        return write_safetensors
    raise UsageError(
        f"{out.name}: expected .pth.tar (the original's layout), .pth or .pt (names and tensors) or .safetensors"
    )


def _write_original(path: Path, checkpoint: Checkpoint) -> None:
    args = argparse.Namespace()
    vars(args).update(checkpoint.args)  # whatever their names
    content = {
        "epoch": checkpoint.epoch or 0, "arch": checkpoint.arch, "state_dict": with_prefix(checkpoint.tensors),
        "optimizer": checkpoint.optimizer, "args": args,
    }  # fmt: skip
    torch.save(content, path)


def _write_bare(path: Path, checkpoint: Checkpoint) -> None:
    torch.save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, path)
