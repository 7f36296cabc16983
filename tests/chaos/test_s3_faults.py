"""Between the store and its S3 server: what passes soon is ridden out, what lasts is said, and nothing is lost."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import isc_jobs, run_all
from deployment import digests
from fault_proxy import (
    DAMAGED,
    INTERNAL,
    LOST,
    RESET,
    SLOW,
    SLOW_DOWN,
    TOO_MANY,
    TRUNCATED,
    TWICE,
    Fault,
    FaultProxy,
    fault_proxy,
)  # fmt: skip
from points import ALL
from stores import s3
from tally import record

from isc_jobs.spec.errors import TemporaryError
from isc_jobs.store import Conflict, Store, open_store

__all__ = ["s3"]

CONTENT = bytes(range(256)) * 40
PASSING = (RESET, LOST, TWICE, SLOW, TRUNCATED, DAMAGED, INTERNAL, SLOW_DOWN, TOO_MANY)
Operation = Callable[[Store, Path], object]


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(os.environ["AWS_ENDPOINT_URL_S3"]) as opened:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", opened.address)
        yield opened


def _upload(store: Store, folder: Path) -> object:
    (folder / "file").write_bytes(CONTENT)
    store.upload("new", folder / "file")
    return store.get("new")[0]


def _download(store: Store, folder: Path) -> object:
    store.download("old", folder / "came")
    return (folder / "came").read_bytes()


def _replaced(store: Store, _: Path) -> object:
    store.put("old", b"anew", if_match=store.get("old")[1])
    return store.get("old")[0]


def _made(store: Store, _: Path) -> object:
    store.put("new", CONTENT, if_none_match=True)
    with pytest.raises(Conflict):
        store.put("new", b"another's", if_none_match=True)
    return store.get("new")[0]


def _written(store: Store, _: Path) -> object:
    store.put("new", CONTENT)
    return store.get("new")[0]


def _deleted(store: Store, _: Path) -> object:
    store.delete("old")
    return store.stat("old")


OPERATIONS: dict[str, Operation] = {
    "get": lambda store, _: store.get("old")[0], "stat": lambda store, _: (found := store.stat("old")) and found.size,
    "list": lambda store, _: [info.key for info in store.list("")], "put": _written, "make": _made,
    "replace": _replaced, "upload": _upload, "download": _download, "delete": _deleted,
}  # fmt: skip


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_fault_at_any_request_changes_no_result(
    proxy: FaultProxy, tmp_path: Path, fault: Fault, operation: str
) -> None:
    """The fault meets the first request, then in a store of its own the second, and so on to the last."""
    requests = _requests(proxy, tmp_path, operation)
    expected = None
    for number in (0, *range(1, requests + 1)):
        store = _prepared(f"{tmp_path.name}-{number}")
        seen = [0]

        def choose(_method: str, _path: str, seen: list[int] = seen, number: int = number) -> Fault | None:
            seen[0] += 1
            return fault if seen[0] == number else None

        proxy.choose = choose
        began = time.monotonic()
        result = OPERATIONS[operation](store, tmp_path)
        took = time.monotonic() - began
        proxy.choose = lambda _method, _path: None
        if number == 0:
            expected = result
            continue
        record(f"S3: {fault.name}", lost=int(result != expected), repeated=0, seconds=took)
        assert result == expected, number


def _requests(proxy: FaultProxy, folder: Path, operation: str) -> int:
    """How many an undisturbed operation makes."""
    store, seen = _prepared(f"{folder.name}-count"), [0]

    def count(_method: str, _path: str) -> None:
        seen[0] += 1

    proxy.choose = count
    OPERATIONS[operation](store, folder)
    proxy.choose = lambda _method, _path: None
    return seen[0]


def _prepared(name: str) -> Store:
    store = open_store(f"s3://bucket/{name}")
    store.put("old", CONTENT)
    return store


LASTING = (RESET, INTERNAL, SLOW_DOWN)


@pytest.mark.parametrize("fault", LASTING, ids=lambda fault: fault.name)
def test_a_fault_that_lasts_is_said_as_temporary(proxy: FaultProxy, tmp_path: Path, fault: Fault) -> None:
    store = _prepared(tmp_path.name)
    proxy.choose = lambda _method, _path: fault
    with pytest.raises(TemporaryError, match="run again later"):
        store.get("old")
    proxy.close()
    with pytest.raises(TemporaryError, match="run again later"):
        store.get("old")
    proxy.open()


@pytest.mark.timeout(3600 if ALL else 900)
@pytest.mark.xdist_group("s3-run")
def test_a_run_through_a_bad_network_ends_with_the_same_bytes(data: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    """One request in twenty meets a fault, and once the server is away for some seconds."""
    settings = ["--until", "train-v83"]
    whole = isc_jobs(*run_all(data, tmp_path / "whole", *settings), env={"ISC_JOBS_WORK": str(tmp_path / "a")})
    assert whole.returncode == 0, whole.stdout + whole.stderr
    expected = digests(str(tmp_path / "whole"), "test")
    for seed in range(20 if ALL else 1):
        chance, lock = random.Random(seed), threading.Lock()

        def choose(
            _method: str, _path: str, chance: random.Random = chance, lock: threading.Lock = lock
        ) -> Fault | None:
            with lock:
                return chance.choice(PASSING) if chance.random() < 0.05 else None

        proxy.choose = choose
        uri = f"s3://bucket/{tmp_path.name}-{seed}"
        began = time.monotonic()
        ran = isc_jobs(*run_all(data, uri, *settings), env={"ISC_JOBS_WORK": str(tmp_path / f"b{seed}")})
        proxy.choose = lambda _method, _path: None
        assert ran.returncode == 0, ran.stdout + ran.stderr
        found = digests(uri, "test")
        record("S3: one request in twenty, a whole run", lost=int(found != expected), repeated=0,
               seconds=time.monotonic() - began)  # fmt: skip
        assert found == expected
        assert proxy.spoilt
