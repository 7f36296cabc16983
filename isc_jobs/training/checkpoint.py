"""Checkpoints in the original's format: epoch, arch, state_dict (under ``module.``), optimizer, args."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isc_jobs.spec.errors import DataError, UsageError

_SHOWN = 8


def write_checkpoint(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, *, epoch: int, arch: str) -> None:
    """Write a finished training; ``epoch`` counts epochs done."""
    content = {
        "epoch": epoch,
        "arch": arch,
        "state_dict": {f"module.{name}": tensor.cpu().contiguous() for name, tensor in model.state_dict().items()},
        "optimizer": optimiser.state_dict(),
        "args": {},
    }
    torch.save(content, path)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Names (without ``module.``) and tensors of a checkpoint, the original's or ours.

    Nothing but tensors, plain values and argparse.Namespace is unpickled; raises DataError for anything else.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UsageError(f"weights {path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise DataError(f"weights {path} are refused: they hold more than tensors and plain values") from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, IndexError) as error:
        raise DataError(f"weights {path} are no checkpoint: {' '.join(str(error).split())[:120]}") from error
    tensors = loaded.get("state_dict") if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise DataError(f"weights {path}: expected a checkpoint with a state_dict of tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint strictly; raises DataError that lists missing, unexpected and misshapen names."""
    given, wanted = read_checkpoint(path), model.state_dict()
    problems = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": [n for n in wanted if n in given and given[n].shape != wanted[n].shape],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {kind}: {_list(names)}" for kind, names in problems.items() if names)
        raise DataError(f"weights {path.name} are of another model than the settings': {listed}")
    model.load_state_dict(given)


def _list(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
