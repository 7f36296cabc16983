"""An output's files come to a machine once, however many processes ask for them; stores are safe in forked ones."""

import multiprocessing
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from stores import s3, store

from isc_jobs.spec.errors import DataError, Terminated
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.stages.fetching import fetch_shards
from isc_jobs.stages.runner import Context
from isc_jobs.store import Store
from isc_jobs.store.artifacts import open_artifact, publish
from isc_jobs.store.s3 import S3Store
from isc_jobs.training.distributed import World

__all__ = ["s3", "store"]
REF = InputRef(stage="s", key="k" * 64)
NAMES = [f"shards/{n}.tar" for n in range(6)]
ALONE = World(0, 1, torch.device("cpu"))


def fill(store: Store, folder: Path) -> None:
    (folder / "shards").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(name)
    publish(store, REF, folder, run="r", attempt=1, summary={}, provenance={}, seconds=1)


class Counting(S3Store):
    """Notes every download, and has them overlap."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.downloads: list[str] = []

    def download(self, key: str, path: Path) -> None:
        self.downloads.append(key.rpartition("/")[2])
        threading.Event().wait(0.05)
        super().download(key, path)


def test_of_processes_that_want_a_file_the_first_fetches_it_for_all(s3: str, tmp_path: Path) -> None:
    store = Counting(f"{s3}/{tmp_path.name}")
    fill(store, tmp_path / "out")
    artifacts = [open_artifact(store, REF, tmp_path / "cache", tmp_path / "notes") for _ in range(4)]
    assert not artifacts[0].is_noted(NAMES[0])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda artifact: [artifact.path(name).read_text() for name in NAMES], artifacts))
    assert found == [NAMES] * 4
    assert sorted(store.downloads) == ["0.tar", "1.tar", "2.tar", "3.tar", "4.tar", "5.tar"]
    assert all(artifacts[0].is_noted(name) for name in NAMES)


def test_a_file_that_changed_since_another_process_verified_it_is_looked_at_again(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path / "out")
    path = open_artifact(store, REF, tmp_path / "cache", tmp_path / "notes").path(NAMES[0])
    path.write_text("x" * len(NAMES[0]))
    again = open_artifact(store, REF, tmp_path / "cache", tmp_path / "notes")
    if isinstance(store, S3Store):  # the copy was damaged, not the object
        assert again.path(NAMES[0]).read_text() == NAMES[0]
    else:
        with pytest.raises(DataError, match="is damaged"):
            again.path(NAMES[0])


def test_a_file_that_was_damaged_when_it_came_is_noted_by_nobody(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path / "out")
    store.put(f"artifacts/s/{REF.key}/{NAMES[0]}", b"x" * len(NAMES[0]))
    for _ in range(2):
        artifact = open_artifact(store, REF, tmp_path / "cache", tmp_path / "notes")
        with pytest.raises(DataError, match="is damaged"):
            artifact.path(NAMES[0])
        assert not artifact.is_noted(NAMES[0])


def context(store: Store, tmp_path: Path) -> Context:
    spec = StageSpec(
        program="train", stage="train-v83", key="t" * 64, run="r", attempt=1, store=store.uri, settings={},
        inputs={"data": REF}, parameters={}, execution={},
    )  # fmt: skip
    return Context(spec, store, tmp_path / "work")


@pytest.mark.parametrize(("rank", "size"), [(0, 1), (1, 3)])
def test_a_training_has_all_shards_before_its_first_step(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, size: int
) -> None:
    fill(store, tmp_path / "out")
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(size))
    ctx = context(store, tmp_path)
    data = ctx.input("data")
    fetch_shards(ctx, data, NAMES[:4], ALONE)
    assert [data.is_noted(name) for name in NAMES] == [True] * 4 + [False] * 2


def test_a_stop_ends_the_fetching(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path / "out")
    ctx = context(store, tmp_path)
    data = ctx.input("data")
    ctx.note_stops()
    ctx.request_stop(signal.SIGTERM, None)
    with pytest.raises(Terminated, match="before the first step"):
        fetch_shards(ctx, data, NAMES, ALONE)
    assert not any(map(data.is_noted, NAMES))


_FORKED: list[S3Store] = []
_PARENTS: list[object] = []  # its client


def _read(number: int) -> tuple[bytes, bool]:
    [store] = _FORKED
    return store.get(f"numbers/{number}")[0], store._client in _PARENTS


def test_forked_processes_share_no_connection_with_their_parent(s3: str, tmp_path: Path) -> None:
    store = S3Store(f"{s3}/{tmp_path.name}")
    for number in range(20):
        store.put(f"numbers/{number}", b"%d" % number)
    _FORKED[:], _PARENTS[:] = [store], [store._client]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_read, range(20)) == [(b"%d" % number, False) for number in range(20)]
    assert store._client in _PARENTS
