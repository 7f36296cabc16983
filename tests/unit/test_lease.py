"""One controller a run: who holds the lease writes, who has lost it does not."""

import os
from pathlib import Path
from unittest.mock import patch

import pytest

from isc_jobs.controller.lease import DURATION_S, FencedStore, Lease, LeaseLost, is_held
from isc_jobs.controller.manifest import AttemptRecord, Manifest, ManifestFile, read_manifest
from isc_jobs.controller.request import Request
from isc_jobs.spec.errors import TemporaryError
from isc_jobs.store import NotFound, Store, open_store

ELSEWHERE = "isc_jobs.controller.lease._host"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def lease(store: Store, clock: Clock, host: str) -> Lease:
    """Of a controller on this host."""

    class Elsewhere(Lease):
        def _write(self, etag: str | None, expires: float | None = None) -> None:
            with patch(ELSEWHERE, return_value=host):
                super()._write(etag, expires)

    return Elsewhere(store, "mine", clock)


def test_a_living_controller_keeps_others_away_and_epochs_only_grow(store: Store) -> None:
    clock = Clock()
    first, second = lease(store, clock, "a"), lease(store, clock, "b")
    assert first.acquire() == 1
    with pytest.raises(TemporaryError, match="held by another controller"):
        second.acquire()
    clock.now += DURATION_S - 1
    first.renew()
    clock.now += 2
    with pytest.raises(TemporaryError):
        second.acquire()
    first.release()
    assert second.acquire() == 2


def test_a_controller_that_was_paused_past_its_lease_writes_nothing_any_more(store: Store) -> None:
    clock = Clock()
    paused, successor = lease(store, clock, "a"), lease(store, clock, "b")
    paused.acquire()
    fenced = FencedStore(store, paused)
    fenced.put("runs/mine/x", b"1")
    clock.now += DURATION_S + 1
    assert successor.acquire() == 2
    for write in (lambda: fenced.put("runs/mine/x", b"2"), lambda: fenced.delete("runs/mine/x")):
        with pytest.raises(LeaseLost, match="taken over by another controller"):
            write()
    assert fenced.get("runs/mine/x")[0] == b"1"
    with pytest.raises(NotFound):
        fenced.get("runs/mine/y")
    FencedStore(store, successor).put("runs/mine/x", b"3")


def test_a_dead_process_of_this_machine_is_followed_at_once(store: Store) -> None:
    clock = Clock()
    held = Lease(store, "mine", clock)
    held.acquire()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with patch("os.getpid", return_value=pid):
        held.release()
        dead = Lease(store, "mine", clock)
        dead.acquire()
    assert not is_held(store, "mine", clock.now)
    assert Lease(store, "mine", clock).acquire() == 3


def test_nobody_holds_a_run_that_was_never_begun(store: Store) -> None:
    assert not is_held(store, "mine", 0.0)


def manifest(epoch: int) -> Manifest:
    request = Request(
        run="mine", settings={}, source="s", anonymous=False, source_digest="0", weights_sha256=None, first=None,
        last=None, launcher="local",
    )  # fmt: skip
    return Manifest(request=request, stages={}, state="running", epoch=epoch)


def test_a_manifest_keeps_earlier_attempts_and_refuses_an_earlier_controller(store: Store) -> None:
    first = ManifestFile(store, manifest(1))
    first.manifest.attempts.append(AttemptRecord(stage="download", attempt=1, exit_code=75, reason="store down"))
    first.save()
    second = ManifestFile(store, manifest(2))
    assert [record.reason for record in second.manifest.attempts] == ["store down"]
    with pytest.raises(LeaseLost):
        ManifestFile(store, manifest(1))
    with pytest.raises(TemporaryError):
        first.save()
    second.end("failed", "why")
    assert read_manifest(store, "mine")[0].reason == "why"


def test_a_damaged_manifest_is_written_anew(store: Store) -> None:
    store.put("runs/mine/manifest.json", b"{")
    ManifestFile(store, manifest(1))
    assert read_manifest(store, "mine")[0].epoch == 1
