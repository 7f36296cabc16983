"""Checkpoints in the original's format: epoch, arch, state_dict (under ``module.``), optimizer, args.

Read as well: bare mappings of names to tensors, and safetensors. Nothing read from a file is ever run.
"""

import argparse
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from isc_jobs.spec.errors import DataError, TemporaryError
from isc_jobs.spec.weights import check_weights
from isc_jobs.vision.pickled import brief, check_tensors, read_pickled

_SHOWN = 3  # names of each kind
_UNWRITTEN = re.compile(r"inline_container|PytorchStreamWriter|iostream")
_DEEPEST = 20  # levels of values within args
_MOST_VALUES = 10_000  # in args
# Whatever the safetensors reader lets through on damaged bytes.
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, LookupError, AttributeError, TypeError, ArithmeticError,
               MemoryError)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, without ``module.``, and what a file says about them."""

    layout: Literal["original", "bare", "safetensors"]
    tensors: dict[str, Tensor]
    epoch: int | None = None  # epochs done
    arch: str | None = None  # as the file has it
    optimizer: dict[str, Any] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)  # plain values


def write_checkpoint(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, *, epoch: int, arch: str, args: Mapping[str, Any]
) -> None:
    """Write a finished training; ``epoch`` counts epochs done, ``args`` are plain values that inference needs."""
    content = {
        "epoch": epoch,
        "arch": arch,
        "state_dict": with_prefix(model.state_dict()),
        "optimizer": optimiser.state_dict(),
        "args": dict(args),
    }
    save_tensors(content, path)


def save_tensors(content: Mapping[str, Any], path: Path) -> None:
    """``torch.save``; raises TemporaryError where the disk takes no more, which torch tells by a RuntimeError."""
    try:
        torch.save(content, path)
    except RuntimeError as error:
        if not _UNWRITTEN.search(str(error)):
            raise
        free = shutil.disk_usage(path.parent).free >> 20
        raise TemporaryError(
            f"{path} cannot be written, {free} MB are free there ({brief(error)}): free space, and run again"
        ) from error


def with_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU under ``module.``, as the original's DistributedDataParallel names them."""
    return {f"module.{name}": tensor.cpu().contiguous() for name, tensor in tensors.items()}


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint of any layout; raises UsageError for no file, DataError for what is not one or would run code."""
    return _open_safetensors(path) if check_weights(path) == "safetensors" else _open_pickled(path)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Names (without ``module.``) and tensors; errors as of ``open_checkpoint``."""
    return open_checkpoint(path).tensors


def _open_pickled(path: Path) -> Checkpoint:
    loaded = read_pickled(path)
    if _is_tensors(loaded) and loaded:
        return Checkpoint("bare", _without_prefix(path, loaded))
    if not isinstance(loaded, dict) or not _is_tensors(loaded.get("state_dict")):
        raise DataError(f"weights {path}: expected a checkpoint with a state_dict of tensors")
    epoch, arch, optimizer = (loaded.get(key) for key in ("epoch", "arch", "optimizer"))
    return Checkpoint(
        "original",
        _without_prefix(path, loaded["state_dict"]),
        epoch if isinstance(epoch, int) else None,
        arch if isinstance(arch, str) else None,
        optimizer if isinstance(optimizer, dict) else {},
        _PlainValues(path).mapping(loaded.get("args")),
    )


def _open_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        epoch, args = (json.loads(metadata.get(key, "null")) for key in ("epoch", "args"))
    except (SafetensorError, *_UNREADABLE) as error:
        raise DataError(f"weights {path}: the safetensors file is cut short or damaged ({brief(error)})") from error
    return Checkpoint(
        "safetensors",
        _without_prefix(path, tensors),
        epoch if isinstance(epoch, int) else None,
        metadata.get("arch"),
        args=_PlainValues(path).mapping(args),
    )


def write_safetensors(path: Path, checkpoint: Checkpoint) -> None:
    """Write the tensors; arch, epoch and args go to the metadata, the optimiser's state is left out."""
    metadata = {"format": "pt", "args": json.dumps(checkpoint.args)}
    if checkpoint.arch is not None:
        metadata["arch"] = checkpoint.arch
    if checkpoint.epoch is not None:
        metadata["epoch"] = str(checkpoint.epoch)
    tensors = {name: tensor.clone().contiguous() for name, tensor in checkpoint.tensors.items()}
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def _is_tensors(values: object) -> bool:
    return isinstance(values, dict) and all(isinstance(value, Tensor) for value in values.values())


def _without_prefix(path: Path, tensors: dict[Any, Tensor]) -> dict[str, Tensor]:
    check_tensors(path, tensors)
    plain = {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}
    if len(plain) != len(tensors):
        raise DataError(f"weights {path}: some names are there both with and without module.")
    return plain


class _PlainValues:
    """Values of a file's args as numbers, words, and lists and mappings of them; anything else as its text."""

    def __init__(self, path: Path) -> None:
        self._path, self._count = path, 0

    def mapping(self, args: object) -> dict[str, Any]:
        """A Namespace or mapping; empty for anything else. Raises DataError for what has no end or nearly so."""
        plain = self._plain(args, 0) if isinstance(args, argparse.Namespace | dict) else {}
        assert isinstance(plain, dict)
        return plain

    def _plain(self, value: object, depth: int) -> Any:
        self._count += 1
        if depth > _DEEPEST or self._count > _MOST_VALUES:  # a value may hold itself
            raise DataError(f"weights {self._path} are refused: their args are nested without end or too large")
        if value is None or isinstance(value, str | int | float):
            return value
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, dict):
            return {str(key): self._plain(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple | set):
            return [self._plain(inner, depth + 1) for inner in value]
        if isinstance(value, Tensor):
            return f"tensor {tuple(value.shape)}"
        return f"{len(value)} bytes" if isinstance(value, bytes | bytearray) else str(value)


@dataclass(frozen=True)
class Misfit:
    """Names in which tensors differ from a model's."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]
    mistyped: list[str]  # whole or complex numbers where the model has others, or the other way round

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.missing or self.unexpected or self.misshapen or self.mistyped)

    def __str__(self) -> str:
        """How many and which."""
        kinds = {
            "missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misshapen,
            "of another type": self.mistyped,
        }  # fmt: skip
        return "; ".join(f"{len(names)} {kind}: {_list(names)}" for kind, names in kinds.items() if names)


def find_misfit(model: nn.Module, given: Mapping[str, Tensor]) -> Misfit:
    """What keeps ``given`` from loading strictly into the model."""
    wanted = model.state_dict()
    common = [name for name in wanted if name in given]
    return Misfit(
        [name for name in wanted if name not in given],
        [name for name in given if name not in wanted],
        [name for name in common if given[name].shape != wanted[name].shape],
        [name for name in common if given[name].is_floating_point() != wanted[name].is_floating_point()],
    )


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint strictly; raises DataError that lists missing, unexpected, misshapen and not finite names."""
    given = read_checkpoint(path)
    misfit = find_misfit(model, given)
    if misfit:
        raise DataError(f"weights {path.name} are of another model than asked for: {misfit}")
    check_finite(path, given)
    model.load_state_dict(given)


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises DataError that lists the names of tensors with NaN or infinity."""
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise DataError(
            f"weights {path.name} hold NaN or infinity in {len(bad)} of {len(tensors)} tensors ({_list(bad)}): "
            "they are of a training that diverged, give others"
        )


def _list(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
