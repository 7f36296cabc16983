"""Targets: weights in every layout, and the state that a training resumes from."""

import argparse
import io
from functools import cache
from pathlib import Path
from typing import Any

import torch
from contract import Target
from safetensors.torch import save
from torch import nn

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.training.checkpoint import load_weights, open_checkpoint
from isc_jobs.training.convert import inspect_file
from isc_jobs.training.inference import dimensions, read_facts
from isc_jobs.training.loop import load_state
from isc_jobs.vision.model import read_tensors


def model() -> nn.Module:
    """A small one."""
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def _open(data: bytes, folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(data)
    checkpoint = open_checkpoint(path)
    try:
        read_facts(checkpoint)
        dimensions(checkpoint)
    except (DataError, UsageError):
        pass
    load_weights(model(), path)


def _pickled(data: bytes, folder: Path) -> None:
    _open(data, folder, "weights.pth.tar")


def _safetensors(data: bytes, folder: Path) -> None:
    _open(data, folder, "weights.safetensors")


def _inspect(data: bytes, folder: Path) -> object:
    path = folder / "weights.pth.tar"
    path.write_bytes(data)
    return inspect_file(path)


def _backbone(data: bytes, folder: Path) -> object:
    path = folder / "backbone.pth"
    path.write_bytes(data)
    return read_tensors(path)


def _state(data: bytes, folder: Path) -> object:
    path = folder / "state.pt"
    path.write_bytes(data)
    return load_state(path, torch.device("cpu"))


def _saved(content: Any, *, zipped: bool = True) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


@cache
def _contents() -> tuple[dict[str, Any], dict[str, Any]]:
    torch.manual_seed(0)
    made = model()
    optimiser = torch.optim.SGD(made.parameters(), lr=0.1)
    tensors = {f"module.{name}": tensor for name, tensor in made.state_dict().items()}
    original = {
        "epoch": 3, "arch": "resnet18", "state_dict": tensors, "optimizer": optimiser.state_dict(),
        "args": argparse.Namespace(lr=0.1, input_size=64, gem_eval_p=1.0, arch="resnet18"),
    }  # fmt: skip
    return original, {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def pickles() -> list[bytes]:
    """The original's layout and a bare one, as a zip and as before torch 1.6."""
    return [_saved(content, zipped=zipped) for content in _contents() for zipped in (True, False)]


def _state_seed() -> list[bytes]:
    history = ((1, 0, 0.5, 0.2, 0.3, 0.1, 0.1),)
    return [_saved({"step": 1, "model": _contents()[1], "optimiser": {}, "scaler": {}, "memory": {},
                    "history": history, "generator": torch.zeros(4, dtype=torch.uint8)})]  # fmt: skip


def safetensors() -> list[bytes]:
    """With the metadata that is written here."""
    return [save(_contents()[1], {"format": "pt", "arch": "resnet18", "epoch": "3", "args": '{"input_size": 64}'})]


TARGETS = (
    Target(name="weights", run=_pickled, seeds=pickles, errors=(DataError,), names="weights.pth.tar"),
    Target(name="safetensors", run=_safetensors, seeds=safetensors, errors=(DataError,), names="weights.safetensors"),
    Target(name="inspect", run=_inspect, seeds=pickles, errors=(DataError,), names="weights.pth.tar"),
    Target(name="backbone", run=_backbone, seeds=lambda: pickles()[2:], errors=(DataError,), names="backbone.pth"),
    Target(name="state", run=_state, seeds=_state_seed, errors=(DataError,), names="state.pt"),
)
