"""Checkpoints are read without running code from them, and refused with names when they do not fit."""

import argparse
import os
from multiprocessing import managers
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.training.checkpoint import (
    Checkpoint,
    load_weights,
    open_checkpoint,
    read_checkpoint,
    write_checkpoint,
    write_safetensors,
)  # fmt: skip


class _Hostile:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _model(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def test_what_is_written_is_read_in_the_original_layout(tmp_path: Path) -> None:
    model = _model()
    path = tmp_path / "checkpoint.pth.tar"
    write_checkpoint(
        path,
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        epoch=6,
        arch="some_backbone",
        args={"input_size": 160},
    )
    stored = torch.load(path, weights_only=True)
    assert set(stored) == {"epoch", "arch", "state_dict", "optimizer", "args"}
    assert (stored["epoch"], stored["arch"], stored["args"]) == (6, "some_backbone", {"input_size": 160})
    assert set(stored["state_dict"]) == {f"module.{name}" for name in model.state_dict()}
    other = _model()
    load_weights(other, path)
    for ours, theirs in zip(other.state_dict().values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_the_original_files_command_line_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "v107.pth.tar"
    content = {"state_dict": _model().state_dict(), "args": argparse.Namespace(arch="a", lr=0.1), "best_acc": 0.5}
    torch.save(content, path)
    assert set(read_checkpoint(path)) == set(_model().state_dict())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("place", ["args", "within args", "optimizer", "state_dict", "namesake"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, place: str, zipped: bool) -> None:
    path, trace = tmp_path / "hostile.pth.tar", tmp_path / "it-ran"
    content: dict[str, Any] = {"state_dict": _model().state_dict(), "args": argparse.Namespace(lr=0.1)}
    hostile: dict[str, dict[str, Any]] = {
        "args": {"args": _Hostile(trace)},
        "within args": {"args": argparse.Namespace(lr=_Hostile(trace))},
        "optimizer": {"optimizer": {"state": {0: {"momentum_buffer": [_Hostile(trace)]}}}},
        "state_dict": {"state_dict": {"0.weight": _Hostile(trace)}},
        "namesake": {"args": type("Namespace", (_Hostile,), {"__module__": "argparse"})(trace)},
    }
    content |= hostile[place]
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match="refused: they hold more than tensors"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("other", [SimpleNamespace(lr=1), managers.Namespace(lr=1), argparse.FileType("w"), Path])
def test_no_class_but_argparse_namespace_is_let_in(tmp_path: Path, other: object) -> None:
    torch.save({"state_dict": _model().state_dict(), "args": other}, tmp_path / "x.pth.tar")
    with pytest.raises(DataError, match="refused: they hold more than tensors"):
        read_checkpoint(tmp_path / "x.pth.tar")


def test_a_namespace_that_is_none_brings_values_and_no_behaviour(tmp_path: Path) -> None:
    """What names itself argparse.Namespace is made of Python's own class, whatever the writer's did."""
    path = tmp_path / "x.pth.tar"
    real = argparse.Namespace
    pretended = type("Namespace", (), {"__module__": "argparse", "__getattr__": lambda *_: 1 / 0})
    value = pretended()
    value.__dict__.update(lr=0.5, __class__="os", __setstate__="no", vars=3)
    argparse.Namespace = pretended  # type: ignore[misc, assignment]
    try:
        torch.save({"state_dict": _model().state_dict(), "args": value}, path)
    finally:
        argparse.Namespace = real  # type: ignore[misc]
    assert open_checkpoint(path).args == {"lr": 0.5, "__class__": "os", "__setstate__": "no", "vars": 3}


@pytest.mark.parametrize("kind", ["itself", "deep", "many"])
def test_args_without_end_are_refused(tmp_path: Path, kind: str) -> None:
    args = argparse.Namespace(lr=0.1)
    if kind == "itself":
        args.self = [args]
    elif kind == "deep":
        for _ in range(50):
            args = argparse.Namespace(inner=args)
    else:
        args.many = [0] * 20_000
    torch.save({"state_dict": _model().state_dict(), "args": args}, tmp_path / "x.pth.tar")
    with pytest.raises(DataError, match="nested without end or too large"):
        open_checkpoint(tmp_path / "x.pth.tar")


def test_args_of_any_kind_become_plain_values(tmp_path: Path) -> None:
    inner = argparse.Namespace(size=torch.Size([2, 3]), path=("a", 1), none=None)
    args = argparse.Namespace(arch="a", flag=True, inner=inner, device=torch.device("cpu"), mean=torch.zeros(3))
    torch.save({"state_dict": _model().state_dict(), "args": args}, tmp_path / "x.pth.tar")
    assert open_checkpoint(tmp_path / "x.pth.tar").args == {
        "arch": "a", "flag": True, "inner": {"size": [2, 3], "path": ["a", 1], "none": None}, "device": "cpu",
        "mean": "tensor (3,)",
    }  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False], ids=["state_dict", "bare"])
def test_every_layout_loads_to_the_bit(tmp_path: Path, prefix: str, zipped: bool, wrapped: bool) -> None:
    model, other = _model(), _model()
    tensors = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    content = {"state_dict": tensors, "epoch": 3, "arch": "a"} if wrapped else tensors
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    load_weights(other, tmp_path / "x.pth")
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    opened = open_checkpoint(tmp_path / "x.pth")
    assert (opened.layout, opened.epoch, opened.arch) == (("original", 3, "a") if wrapped else ("bare", None, None))


def test_a_name_with_and_without_prefix_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1), "module.a": torch.ones(1)}}, tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"both with and without module\."):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("change", ["cut", "header", "length", "args"])
def test_a_damaged_safetensors_file_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, Checkpoint("bare", dict(_model().state_dict()), arch="a"))
    data = path.read_bytes()
    data = {
        "cut": data[:-4],
        "header": data[:20] + b"\xff\x00}" + data[23:],
        "length": (10**6).to_bytes(8, "little") + data[8:],
        "args": data.replace(b'"args":"{}"', b'"args":"{!"'),
    }[change]
    path.write_bytes(data)
    with pytest.raises(DataError, match="the safetensors file is cut short or damaged"):
        open_checkpoint(path)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.binary(min_size=1, max_size=4), st.sampled_from(["zip", "legacy", "safetensors"]))
def test_damaged_bytes_anywhere_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, place: int, bytes_: bytes, kind: str
) -> None:
    """No exception but ours."""
    path = tmp_path_factory.mktemp("damaged") / "x"
    content = {"state_dict": _model().state_dict(), "args": argparse.Namespace(lr=0.1), "epoch": 1, "arch": "a"}
    if kind == "safetensors":
        write_safetensors(path, Checkpoint("bare", dict(_model().state_dict()), arch="a", args={"lr": 0.1}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    data = bytearray(path.read_bytes())
    start = place % len(data)
    data[start : start + len(bytes_)] = bytes_
    path.write_bytes(data)
    try:
        read = bool(open_checkpoint(path).tensors)
    except DataError as error:
        read = "\n" not in str(error)
    assert read


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(100), b"\x80\x02K\x01."],
    ids=["empty", "text", "zip", "int"],
)
def test_other_bytes_are_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"weights\.pth") as raised:
        read_checkpoint(path)
    assert "\n" not in str(raised.value)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.pth.tar"
    torch.save({"state_dict": _model(500).state_dict()}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="the file is cut short or damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, {"state_dict": {"a": 1}}, {"state_dict": None}])
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(DataError, match="expected a checkpoint with a state_dict of tensors"):
        read_checkpoint(tmp_path / "x.pth")


def test_weights_of_another_model_are_listed(tmp_path: Path) -> None:
    given = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    torch.save({"state_dict": given.state_dict()}, tmp_path / "other.pth")
    with pytest.raises(DataError) as raised:
        load_weights(_model(), tmp_path / "other.pth")
    assert "2 unexpected: 2.weight, 2.bias" in str(raised.value)
    assert "6 of another shape: 0.weight" in str(raised.value)


def test_long_lists_of_names_are_cut(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "none.pth")
    with pytest.raises(DataError, match=r"14 missing: .*, …$"):
        load_weights(nn.Sequential(*(nn.Linear(1, 1) for _ in range(7))), tmp_path / "none.pth")


def test_an_absent_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")


def test_weights_of_a_training_that_diverged_are_refused(tmp_path: Path) -> None:
    tensors = _model().state_dict()
    name = next(iter(tensors))
    tensors[name].view(-1)[0] = float("nan")
    torch.save(tensors, tmp_path / "nan.pth")
    with pytest.raises(DataError, match=rf"nan\.pth hold NaN or infinity in 1 of \d+ tensors \({name}\)"):
        load_weights(_model(), tmp_path / "nan.pth")
