"""An index on disk finds what a search of all rows finds, and a crash leaves the old one or the new."""

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from isc_jobs.matching import index as module
from isc_jobs.matching.index import LEAST_IVFPQ, Entry, Index, add, build
from isc_jobs.spec.errors import DataError, TemporaryError, UsageError

Rows = NDArray[np.float32]


def rows(count: int, seed: int = 0, width: int = 32) -> Rows:
    found = np.random.default_rng(seed).normal(size=(count, width))
    unit: Rows = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


def entries(count: int, first: int = 0) -> list[Entry]:
    return [Entry(f"/photos/{number}.jpg", f"{number:032x}") for number in range(first, first + count)]


def blocks(found: Rows) -> Iterator[Rows]:
    yield from np.array_split(found, 3)


def brute(queries: Rows, found: Rows, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    distances = ((queries[:, None].astype(np.float64) - found[None]) ** 2).sum(2)
    places = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return -np.take_along_axis(distances, places, 1), places


def test_an_exact_index_finds_what_a_search_of_all_rows_finds(tmp_path: Path) -> None:
    found, queries = rows(1000), rows(20, 1)
    head = build(tmp_path / "i", "exact", entries(1000), blocks(found), {}, None)
    assert (head.kind, head.count, head.dimensions, head.recall) == ("exact", 1000, 32, None)
    index = Index(tmp_path / "i")
    scores, places = index.search(queries, 7)
    expected = brute(queries, found, 7)
    np.testing.assert_array_equal(places, expected[1])
    np.testing.assert_allclose(scores, expected[0], atol=1e-6)
    np.testing.assert_array_equal(np.concatenate(list(index.rows())), found)
    few = index.search(queries, 1500)
    assert (few[1][:, 1000:] == -1).all()
    assert np.isneginf(few[0][:, 1000:]).all()


def test_equal_rows_are_found_by_position(tmp_path: Path) -> None:
    build(tmp_path / "i", "exact", entries(30), blocks(np.repeat(rows(3), 10, axis=0)), {}, None)
    _, places = Index(tmp_path / "i").search(rows(3)[1:2], 10)
    assert places[0].tolist() == list(range(10, 20))


def test_codes_and_lists_find_nearly_all_and_rank_exactly(tmp_path: Path) -> None:
    found = rows(LEAST_IVFPQ)
    copies = found[::500] + 0.05 * rows(20, 2)
    head = build(tmp_path / "i", "ivfpq", entries(LEAST_IVFPQ), blocks(found), {}, None)
    assert head.recall is not None
    assert head.recall >= 0.9
    scores, places = Index(tmp_path / "i").search(copies, 1)
    assert places[:, 0].tolist() == list(range(0, LEAST_IVFPQ, 500))
    np.testing.assert_allclose(scores[:, 0], brute(copies, found, 1)[0][:, 0], atol=1e-6)


def test_added_rows_are_found_and_the_old_files_go(tmp_path: Path) -> None:
    first, second = rows(50), rows(40, 1)
    build(tmp_path / "i", "exact", entries(50), blocks(first), {"arch": "a"}, None)
    old = Index(tmp_path / "i")
    head = add(tmp_path / "i", entries(40, 50), second)
    assert (head.count, head.generation, head.model) == (90, 2, {"arch": "a"})
    new = Index(tmp_path / "i")
    assert new.search(second[:5], 1)[1][:, 0].tolist() == [50, 51, 52, 53, 54]
    assert new.entries[50].name == "/photos/50.jpg"
    assert old.search(first[:5], 1)[1][:, 0].tolist() == [0, 1, 2, 3, 4]  # who has it open goes on
    assert not list((tmp_path / "i").glob("*-1.*"))


@pytest.mark.parametrize("what", ["names", "rows", "index.json"])
def test_a_crash_while_adding_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    build(tmp_path / "i", "exact", entries(50), blocks(rows(50)), {}, None)
    calls = {"names": 1, "rows": 2, "index.json": 3}[what]
    seen = []

    def crash(_descriptor: int) -> None:
        seen.append(1)
        if len(seen) == calls:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_flush", crash)
    if what == "index.json":
        monkeypatch.setattr(module.Head, "model_dump_json", lambda *_, **__: crash(0))
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path / "i", entries(5, 50), rows(5, 3))
    monkeypatch.undo()
    assert Index(tmp_path / "i").head.count == 50
    assert add(tmp_path / "i", entries(5, 50), rows(5, 3)).count == 55


def test_what_cannot_be_built_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ivfpq needs 10,000 pictures, here are 50: build --kind exact"):
        build(tmp_path / "i", "ivfpq", entries(50), blocks(rows(50)), {}, None)
    build(tmp_path / "i", "exact", entries(50), blocks(rows(50)), {}, None)
    with pytest.raises(UsageError, match="is an index already"):
        build(tmp_path / "i", "exact", entries(50), blocks(rows(50)), {}, None)
    with pytest.raises(UsageError, match=r"queries have \(16,\) dimensions, the index has 32"):
        Index(tmp_path / "i").search(rows(1, width=16), 1)
    with pytest.raises(UsageError, match="is no index: make one with isc-jobs index build"):
        Index(tmp_path / "absent")
    with (tmp_path / "i/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TemporaryError, match="is being written by another process"):
            add(tmp_path / "i", entries(1, 50), rows(1))


def damaged(folder: Path, name: str) -> None:
    path = next(folder.glob(name))
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("name", ["names-1.jsonl", "rows-1.faiss", "index.json"])
def test_a_damaged_index_is_refused(tmp_path: Path, name: str) -> None:
    build(tmp_path / "i", "exact", entries(50), blocks(rows(50)), {}, None)
    damaged(tmp_path / "i", name)
    with pytest.raises(DataError, match="is damaged"):
        Index(tmp_path / "i")


def test_an_index_of_another_format_is_not_guessed_at(tmp_path: Path) -> None:
    build(tmp_path / "i", "exact", entries(50), blocks(rows(50)), {}, None)
    head = json.loads((tmp_path / "i/index.json").read_text())
    (tmp_path / "i/index.json").write_text(json.dumps(head | {"format": 2}))
    with pytest.raises(UsageError, match="has format 2, this version reads 1"):
        Index(tmp_path / "i")
