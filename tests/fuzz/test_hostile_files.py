"""Files that point to other files, and weights that are not what they say."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from file_targets import descriptor_file
from weights_targets import model

from isc_jobs.retrieval.submission import read_descriptors
from isc_jobs.spec.errors import DataError
from isc_jobs.store import open_store
from isc_jobs.store.source import open_source
from isc_jobs.training.checkpoint import load_weights
from isc_jobs.vision.model import read_tensors

_ROWS = np.ones((4, 8), np.float32)


def _external_link(file: h5py.File, other: Path) -> None:
    file["query"] = h5py.ExternalLink(str(other), "query")


def _external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset("query", (4, 8), np.float32, external=[(str(other), 0, 4 * 8 * 4)])


def _virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((4, 8), np.float32)
    layout[:] = h5py.VirtualSource(str(other), "query", (4, 8), np.float32)
    file.create_virtual_dataset("query", layout)


def _soft_link(file: h5py.File, _other: Path) -> None:
    file["rows"] = _ROWS
    file["query"] = h5py.SoftLink("/rows")


def _soft_cycle(file: h5py.File, _other: Path) -> None:
    file["other"] = h5py.SoftLink("/query")
    file["query"] = h5py.SoftLink("/other")


def _group(file: h5py.File, _other: Path) -> None:
    file.create_group("query")["query"] = file["/"]


_DATASETS = [_external_link, _external_storage, _virtual, _soft_link, _soft_cycle, _group]


@pytest.mark.parametrize("write", _DATASETS, ids=lambda write: write.__name__.strip("_"))
def test_descriptors_that_lie_elsewhere_are_not_read(write: Callable[[h5py.File, Path], None], tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    other.write_bytes(descriptor_file())
    with h5py.File(tmp_path / "found.h5", "w") as file:
        file["query_ids"] = np.array(["a", "b", "c", "d"], "S")
        write(file, other)
    with pytest.raises(DataError, match=r"found.h5: query is no dataset of this file alone"):
        read_descriptors(tmp_path / "found.h5", "query")


@pytest.mark.parametrize(
    ("rows", "ids", "sentence"),
    [
        (_ROWS.astype(np.float64), ["a", "b", "c", "d"], "query is float64 (4, 8), expected float32"),
        (_ROWS[0], ["a"], "query is float32 (8,), expected float32 (n, d)"),
        (_ROWS, ["a", "b", "c"], "with 3 ids"),
        (_ROWS, ["a", "b", "c", "c"], "holds 1 ids again, the first is 'c'"),
        (_ROWS * np.nan, ["a", "b", "c", "d"], "4 of 4 descriptors hold NaN"),
        (_ROWS, ["a", "b", "c", "x" * 2_000], "an id of 2000 characters"),
    ],
)
def test_other_descriptors_are_refused(rows: Any, ids: list[str], sentence: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "found.h5", "w") as file:
        file["query"], file["query_ids"] = rows, np.array(ids, "S")
    with pytest.raises(DataError) as caught:
        read_descriptors(tmp_path / "found.h5", "query")
    assert sentence in str(caught.value)


class _Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [2, "torch"])
def test_backbone_weights_run_nothing(protocol: int | str, tmp_path: Path) -> None:
    path, trace = tmp_path / "backbone.pth", tmp_path / "ran"
    if protocol == "torch":
        torch.save({"w": _Hostile(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"w": _Hostile(trace)}, 2))
    with pytest.raises(DataError, match=r"backbone.pth are refused: they hold more than tensors"):
        read_tensors(path)
    assert not trace.exists()


_TENSORS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "NaN": (lambda weight: weight * float("nan"), "hold NaN or infinity in 1 of 7 tensors (0.weight)"),
    "infinity": (lambda weight: weight / 0, "hold NaN or infinity in 1 of 7 tensors (0.weight)"),
    "shape": (lambda weight: weight[:, :1], "1 of another shape: 0.weight"),
    "whole numbers": (lambda weight: weight.long(), "1 of another type: 0.weight"),
    "complex": (lambda weight: weight + 1j, "1 of another type: 0.weight"),
    "sparse": (lambda weight: weight.to_sparse(), "is sparse, quantised or without data"),
    "on no device": (lambda weight: weight.to("meta"), "is sparse, quantised or without data"),
    "10 TB": (lambda _: torch.zeros(1).expand(10**12), "claims (1000000000000,), more than the file has data for"),
    "not there": (lambda _: None, "expected a checkpoint with a state_dict of tensors"),
}


@pytest.mark.parametrize("kind", _TENSORS)
def test_weights_that_no_model_can_use_are_named(kind: str, tmp_path: Path) -> None:
    change, sentence = _TENSORS[kind]
    tensors = dict(model().state_dict())
    tensors["0.weight"] = change(tensors["0.weight"] + 1)
    torch.save({"state_dict": tensors}, tmp_path / "w.pth.tar")
    with pytest.raises(DataError) as caught:
        load_weights(model(), tmp_path / "w.pth.tar")
    assert sentence in str(caught.value)


def test_a_source_gives_no_devices_and_goes_round_in_no_circle(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "train_images"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"x")
    os.mkfifo(folder / "fifo.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "nowhere.jpg").symlink_to("nowhere")
    (folder / "circle").symlink_to(tmp_path / "photos")
    assert [info.key for info in open_source(str(tmp_path / "photos")).list()] == ["train_images/a.jpg"]


def test_objects_with_other_names_are_no_attempts(tmp_path: Path) -> None:
    """A store may hold anything under a run."""
    from isc_jobs.controller.status import _attempts

    store = open_store(str(tmp_path))
    for name in ("attempt-1", "attempt-x", "attempt-", "attempt-99999999999999999999", "attempt-2/more"):
        store.put(f"runs/mine/extract/{name}/spec.json", json.dumps({}).encode())
    assert _attempts(store, "mine", "extract") == [1]
