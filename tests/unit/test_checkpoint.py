"""Checkpoints are read without running code from them, and refused with names when they do not fit."""

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.training.checkpoint import load_weights, read_checkpoint, write_checkpoint


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
    write_checkpoint(path, model, torch.optim.SGD(model.parameters(), lr=0.1), epoch=6, arch="some_backbone")
    stored = torch.load(path, weights_only=True)
    assert set(stored) == {"epoch", "arch", "state_dict", "optimizer", "args"}
    assert (stored["epoch"], stored["arch"]) == (6, "some_backbone")
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


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path, trace = tmp_path / "hostile.pth.tar", tmp_path / "it-ran"
    torch.save({"state_dict": _model().state_dict(), "args": _Hostile(trace)}, path)
    with pytest.raises(DataError, match="refused: they hold more than tensors"):
        read_checkpoint(path)
    assert not trace.exists()


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
    with pytest.raises(DataError, match="no checkpoint"):
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
