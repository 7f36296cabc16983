"""One controller a run: who holds the lease writes, who has lost it does not."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from isc_jobs.controller.lease import DURATION_S, FencedStore, Lease, LeaseHeld, LeaseLost, is_held
from isc_jobs.controller.manifest import AttemptRecord, Manifest, ManifestFile, read_manifest
from isc_jobs.controller.request import Request
from isc_jobs.controller.status import stage_status
from isc_jobs.spec.errors import TemporaryError
from isc_jobs.store import NotFound, Store, open_store

ELSEWHERE = "isc_jobs.controller.lease._host"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


class Clock:
    now = 1e9

    def __call__(self) -> float:
        return self.now


def lease(store: Store, clock: Clock, host: str, sleep: Callable[[float], None] = time.sleep) -> Lease:
    """Of a controller on this host."""

    class Elsewhere(Lease):
        def acquire(self) -> int:
            with patch(ELSEWHERE, return_value=host):
                return super().acquire()

        def _write(self, etag: str | None, expires: float | None = None) -> None:
            with patch(ELSEWHERE, return_value=host):
                super()._write(etag, expires)

    return Elsewhere(store, "mine", clock, sleep)


def watched(clock: Clock, meanwhile: Callable[[], object] = lambda: None) -> Callable[[float], None]:
    """A sleep in which the other controller does something."""

    def sleep(seconds: float) -> None:
        clock.now += seconds
        meanwhile()

    return sleep


def test_a_living_controller_keeps_others_away_and_epochs_only_grow(store: Store) -> None:
    clock = Clock()
    first = lease(store, clock, "a")
    second = lease(store, clock, "b", watched(clock, first.renew))
    assert first.acquire() == 1
    with pytest.raises(TemporaryError, match="held by another controller"):
        second.acquire()
    first.release()
    assert second.acquire() == 2


@pytest.mark.parametrize("ahead", [-7200.0, -900.0, 0.0, 900.0])
def test_a_successor_by_any_clock_follows_a_dead_one_only(store: Store, ahead: float) -> None:
    clock, other = Clock(), Clock()
    other.now += ahead
    first = lease(store, clock, "a")
    first.acquire()
    with pytest.raises(LeaseHeld):
        lease(store, other, "b", watched(clock, first.renew)).acquire()
    began = clock.now
    assert lease(store, other, "b", watched(clock)).acquire() == 2
    assert clock.now - began >= DURATION_S
    with pytest.raises(LeaseLost, match="taken over"):
        first.renew()


def test_a_lease_that_ended_long_ago_is_taken_at_once(store: Store) -> None:
    clock = Clock()
    lease(store, clock, "a").acquire()
    clock.now += 3600
    assert lease(store, clock, "b", watched(clock, lambda: pytest.fail("watched"))).acquire() == 2


def test_of_two_that_watch_a_dead_one_one_follows(store: Store) -> None:
    clock = Clock()
    lease(store, clock, "a").acquire()
    quicker = lease(store, clock, "b", watched(clock))
    with pytest.raises(LeaseHeld):
        lease(store, clock, "c", watched(clock, lambda: quicker.epoch or quicker.acquire())).acquire()
    assert quicker.epoch == 2


def test_a_clock_that_is_set_back_prolongs_too(store: Store) -> None:
    clock = Clock()
    first = lease(store, clock, "a")
    first.acquire()
    before = store.get("runs/mine/lease.json")
    clock.now -= 3600
    first.renew()
    assert store.get("runs/mine/lease.json") != before


def test_a_controller_that_was_paused_past_its_lease_writes_nothing_any_more(store: Store) -> None:
    clock = Clock()
    paused, successor = lease(store, clock, "a"), lease(store, clock, "b", watched(clock))
    paused.acquire()
    fenced = FencedStore(store, paused)
    fenced.put("runs/mine/x", b"1")
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


def test_a_run_that_takes_the_place_of_one_with_other_data_says_so_and_has_its_own_attempts(store: Store) -> None:
    first = ManifestFile(store, manifest(1))
    assert first.notice() is None
    first.manifest.attempts.append(AttemptRecord(stage="train-v83", attempt=1, key="1" * 64, kind="user", reason="x"))
    first.end("failed", "x")
    store.put("runs/mine/train-v83/attempt-1/spec.json", b"")
    assert stage_status(store, first.manifest, "train-v83", "1" * 64)["state"] == "failed"
    again = ManifestFile(store, manifest(2))
    assert again.notice() is None  # of the same data
    other = manifest(3)
    other.request = other.request.model_copy(update={"source_digest": "1", "source": "/other"})
    notice = ManifestFile(store, other).notice()
    assert notice is not None
    assert notice.startswith("run mine was of other data or weights (source s): ")
    status = stage_status(store, other, "train-v83", "2" * 64)
    assert (status["state"], status["attempts"]) == ("waiting", [])


def test_a_damaged_manifest_is_written_anew(store: Store) -> None:
    store.put("runs/mine/manifest.json", b"{")
    ManifestFile(store, manifest(1))
    assert read_manifest(store, "mine")[0].epoch == 1
