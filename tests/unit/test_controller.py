"""The loop with a launcher that does as the test says: outages, signals, cancel, failures, resumed runs."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_launcher import FakeLauncher

from isc_jobs.cli import main
from isc_jobs.controller import lease
from isc_jobs.controller import run as loop
from isc_jobs.controller.lease import LeaseLost
from isc_jobs.controller.manifest import ManifestFile, read_manifest
from isc_jobs.controller.pace import Pace
from isc_jobs.controller.plan import Attempt, Policy
from isc_jobs.controller.request import Request, cancel_key, pipeline_of
from isc_jobs.controller.run import Controller
from isc_jobs.controller.status import request_cancel, run_status, status_table
from isc_jobs.spec.errors import Stopped, TemporaryError, UsageError
from isc_jobs.spec.pipeline import find_stage
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import StageSpec
from isc_jobs.store import Store, open_store
from isc_jobs.store.artifacts import publish


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(loop, "_TICK", Pace(0, 0.01, 0.01))
    monkeypatch.setattr(loop, "_TROUBLED_S", 0.01)
    monkeypatch.setattr(loop, "_WATCH_S", 0.05)
    return open_store(str(tmp_path / "store"))


def request(last: str = "download") -> Request:
    return Request(
        run="mine", settings=load_settings("demo").model_dump(mode="json"), source="/photos", anonymous=False,
        source_digest="0" * 64, weights_sha256=None, first=None, last=last, launcher="kubernetes",
    )  # fmt: skip


class Scene:
    """A controller and its launcher."""

    def __init__(self, store: Store, *, patience_s: float = 0.0, last: str = "download") -> None:
        self.store = store
        self.launcher = FakeLauncher(store)
        policy = Policy(patience_s=patience_s, backoff_s=0.0)
        self.controller = Controller(store, request(last), None, lambda _: self.launcher, policy)

    def meanwhile(self, act: Callable[[], object]) -> int:
        """Run, with this done beside it once an attempt runs; the exit code."""

        def wait() -> None:
            while not self.launcher.known:
                time.sleep(0.01)
            act()

        beside = threading.Thread(target=wait)
        beside.start()
        try:
            return self.controller.run()
        finally:
            beside.join()

    def commit(self, folder: Path, stage: str = "download", number: int = 1) -> None:
        """The attempt commits its output and ends."""
        folder.mkdir(exist_ok=True)
        ref = find_stage(pipeline_of(request()), stage).ref
        publish(self.store, ref, folder, run="mine", attempt=number, summary={}, provenance={}, seconds=1)
        self.launcher.end(stage, number, 0)

    @property
    def state(self) -> str:
        return read_manifest(self.store, "mine")[0].state


def test_a_stage_that_commits_ends_the_run_and_nothing_is_left(store: Store, tmp_path: Path) -> None:
    scene = Scene(store)
    assert scene.meanwhile(lambda: scene.commit(tmp_path / "out")) == 0
    assert (scene.state, scene.launcher.closed) == ("succeeded", True)


def test_how_each_attempt_ended_and_what_it_is_counted_as_stands_in_status(store: Store, tmp_path: Path) -> None:
    scene = Scene(store)

    def end(number: int, *how: Any) -> None:
        while ("download", number) not in scene.launcher.known:
            time.sleep(0.01)
        scene.launcher.end("download", number, *how)

    def ends() -> None:
        end(1, 143, "pod p was evicted: low on memory", "p", "Evicted: low on memory")
        end(2, 75, "the store does not answer")
        end(3, 137)
        while ("download", 4) not in scene.launcher.known:
            time.sleep(0.01)
        scene.commit(tmp_path / "out", number=4)

    assert scene.meanwhile(ends) == 0
    status = run_status(store, "mine")
    attempts = status["stages"][0]["attempts"]
    told = {"attempt": 1, "exit_code": 143, "kind": "disruption", "reason": "pod p was evicted: low on memory",
            "pod": "p", "evidence": "Evicted: low on memory"}  # fmt: skip
    assert (attempts[0], [attempt["kind"] for attempt in attempts[1:]]) == (told, ["temporary", "user", "finished"])
    shown = status_table(status)
    assert "attempt 1: disruption: pod p was evicted: low on memory [Evicted: low on memory]" in shown
    assert "attempt 2: temporary: the store does not answer\n" in shown
    assert "attempt 3: user: was killed (out of memory?)\n" in shown
    assert "attempt 4" not in shown


def test_an_outage_is_sat_out_and_one_too_long_leaves_the_stages_running(store: Store, tmp_path: Path) -> None:
    scene = Scene(store, patience_s=60)

    said = "trying again: the cluster does not answer"

    def outage() -> None:
        scene.launcher.away = 1_000_000
        while read_manifest(store, "mine")[0].reason != said:
            time.sleep(0.01)
        scene.launcher.away = 0
        scene.commit(tmp_path / "out")

    assert scene.meanwhile(outage) == 0
    assert (scene.state, read_manifest(store, "mine")[0].reason) == ("succeeded", "")
    other = Scene(open_store(str(tmp_path / "other")), patience_s=0.05)
    with pytest.raises(TemporaryError, match="does not answer"):
        other.meanwhile(lambda: setattr(other.launcher, "away", 10_000))
    assert (other.launcher.left, other.launcher.closed) == (True, False)
    assert (other.state, read_manifest(other.store, "mine")[0].reason) == ("interrupted", "the cluster does not answer")
    assert [attempt.exit_code for attempt in other.launcher.known.values()] == [None]


def test_a_controller_that_was_followed_touches_nothing_more(store: Store) -> None:
    scene = Scene(store, patience_s=60)

    def follow() -> None:
        data, etag = store.get("runs/mine/lease.json")
        store.put("runs/mine/lease.json", data.replace(b'"epoch": 1', b'"epoch": 2'), if_match=etag)
        scene.controller._lease._renewed = 0.0

    with pytest.raises(LeaseLost):
        scene.meanwhile(follow)
    assert [attempt.exit_code for attempt in scene.launcher.known.values()] == [None]
    assert not scene.launcher.closed


@pytest.mark.parametrize(
    ("number", "code", "ends"), [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)], ids=["SIGINT", "SIGTERM"]
)
def test_ctrl_c_ends_the_stages_and_sigterm_leaves_them(store: Store, number: int, code: int, ends: bool) -> None:
    scene = Scene(store)
    assert scene.meanwhile(lambda: signal.raise_signal(number)) == code
    assert (scene.state, scene.launcher.left, scene.launcher.closed) == ("interrupted", not ends, ends)


def test_cancel_ends_a_running_run_and_one_whose_controller_has_gone(store: Store) -> None:
    scene = Scene(store)
    assert scene.meanwhile(lambda: request_cancel(store, "mine")) == 130
    assert (scene.state, scene.launcher.closed) == ("cancelled", True)
    assert request_cancel(store, "mine") == "run mine is not running: cancelled"
    other = Scene(store)
    other.meanwhile(lambda: signal.raise_signal(signal.SIGTERM))
    assert "is asked to end" in request_cancel(store, "mine")
    successor = Scene(store)
    successor.launcher = other.launcher
    successor.controller.cancel()
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN  # children would inherit it
    assert successor.state == "cancelled"
    assert all(attempt.exit_code == 143 for attempt in other.launcher.known.values())


def test_a_signal_is_seen_though_a_library_catches_what_is_raised_in_it(store: Store) -> None:
    scene = Scene(store)
    original = scene.launcher.attempts

    def attempts() -> tuple[Attempt, ...]:
        try:  # as botocore does around its requests
            if scene.launcher.known:
                signal.raise_signal(signal.SIGTERM)
        except Exception:  # noqa: BLE001
            return original()
        return original()

    scene.launcher.attempts = attempts  # type: ignore[method-assign]
    with contextlib.suppress(Stopped):  # the fake raises once more while the run is left
        assert scene.controller.run() == 143


def test_a_wish_to_cancel_outlives_the_controller_that_should_have_read_it(store: Store) -> None:
    first = Scene(store)
    first.meanwhile(lambda: signal.raise_signal(signal.SIGTERM))
    request_cancel(store, "mine")
    second = Scene(store)
    second.launcher = first.launcher
    assert second.controller.run() == 130
    assert second.state == "cancelled"
    assert store.stat(cancel_key("mine")) is None


def test_cancel_waits_for_a_successor_that_comes_while_it_looks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(store)
    scene.meanwhile(lambda: signal.raise_signal(signal.SIGTERM))
    held = {"host": lease._host(), "pid": os.getppid(), "epoch": 2, "expires": time.time() + 60}
    store.put("runs/mine/lease.json", json.dumps(held).encode())
    looks = iter([False, True, True])  # at the first, the successor has not come yet

    def is_held(*_: object) -> bool:
        found = next(looks)
        if found and read_manifest(store, "mine")[0].state != "cancelled":
            ManifestFile(store, read_manifest(store, "mine")[0]).end("cancelled", "cancelled")
        return found

    monkeypatch.setattr(lease, "is_held", is_held)
    assert main(["cancel", "mine", "--store", store.uri]) == 0
    assert scene.state == "cancelled"
    assert json.loads(store.get("runs/mine/lease.json")[0]) == held


def test_the_end_of_a_run_is_patient_too_and_can_be_made_up_for(store: Store, tmp_path: Path) -> None:
    scene = Scene(store, patience_s=60)
    closes: list[int] = []
    close = scene.launcher.close

    def away_at_first() -> None:
        closes.append(1)
        if len(closes) < 3:
            raise TemporaryError("the cluster does not answer")
        close()

    scene.launcher.close = away_at_first  # type: ignore[method-assign]
    assert scene.meanwhile(lambda: scene.commit(tmp_path / "out")) == 0
    assert scene.launcher.closed
    successor = Scene(store)
    successor.controller.settle()
    assert (successor.state, successor.launcher.closed) == ("succeeded", True)


def test_a_failure_of_other_settings_is_not_this_runs(store: Store, tmp_path: Path) -> None:
    scene = Scene(store)
    old = find_stage(pipeline_of(request()), "download").spec("mine", 1, store.uri)
    scene.launcher.start(old.model_copy(update={"key": "of other settings"}))
    scene.launcher.end("download", 1, 65, "too many bad pictures")
    scene.launcher.start(old.model_copy(update={"stage": "extract-gone", "key": "of a stage that is no more"}))
    scene.launcher.end("extract-gone", 1, 65, "bad")

    def commit() -> None:
        while ("download", 2) not in scene.launcher.known:
            time.sleep(0.01)
        scene.commit(tmp_path / "out", number=2)

    assert scene.meanwhile(commit) == 0


def test_what_cannot_be_started_fails_the_run_with_its_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(store)

    def refuse(_: FakeLauncher, __: StageSpec) -> None:
        raise UsageError("cluster refuses Job x: exceeded quota")

    monkeypatch.setattr(FakeLauncher, "start", refuse)
    with pytest.raises(UsageError):
        scene.controller.run()
    manifest, _ = read_manifest(store, "mine")
    assert (manifest.state, manifest.reason) == ("failed", "cluster refuses Job x: exceeded quota")
    assert scene.launcher.closed


def test_failures_are_kept_over_controllers_and_numbers_go_on(store: Store, tmp_path: Path) -> None:
    first = Scene(store)
    assert first.meanwhile(lambda: first.launcher.end("download", 1, 65, "bad pictures")) == 65
    second = Scene(store)
    assert second.meanwhile(lambda: second.commit(tmp_path / "out", number=2)) == 0
    attempts = read_manifest(store, "mine")[0].attempts
    assert [(record.attempt, record.exit_code) for record in attempts] == [(1, 65), (2, 0)]
