"""What lasts long is looked at rarely, and its end is still noticed in good time."""

from pathlib import Path

import pytest

from isc_jobs.controller.kubernetes.known import KnownAttempt
from isc_jobs.controller.pace import Pace
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.store.artifacts import publish
from isc_jobs.store.directory import DirectoryStore


def test_a_pace_is_a_part_of_the_wait_within_bounds() -> None:
    pace = Pace(0.1, 1.0, 5.0)
    assert [pace.after(waited) for waited in (0, 5, 20, 50, 1000)] == [1.0, 1.0, 2.0, 5.0, 5.0]


class Counting(DirectoryStore):
    requests = 0

    def get(self, key: str) -> tuple[bytes, str]:
        self.requests += 1
        return super().get(key)

    def list(self, prefix: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
        self.requests += 1
        return super().list(prefix)


class Attempt:
    """An attempt in a cluster, its store, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.store = Counting(folder / "store")
        self.folder = folder
        self.spec = StageSpec(
            program="train", stage="train-v83", key="k" * 64, run="r", attempt=1, store=self.store.uri,
            settings={}, inputs={}, parameters={}, execution={},
        )  # fmt: skip
        self.known = KnownAttempt(self.spec, 0.0, 0.0, seen={"uid": "a pod"})
        self.now = 0.0

    def report(self, step: int, left_s: float) -> None:
        state = b'{"step": %d, "total": 99, "rate": 1.0, "eta_s": %f}' % (step, left_s)
        self.store.put(f"{self.spec.prefix}/progress.json", state)

    def commit(self) -> None:
        (self.folder / "out").mkdir()
        ref = InputRef(stage=self.spec.stage, key=self.spec.key)
        publish(self.store, ref, self.folder / "out", run="r", attempt=1, summary={}, provenance={}, seconds=1)

    def watch(self, until: float) -> bool:
        """As the launcher does in each tick; whether the commit was seen."""
        while self.now < until:
            self.now += 0.25
            if self.known.has_committed(self.store, self.now):
                return True
            self.known.follow(self.store, self.now)
        return False


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path)


def test_an_hour_of_a_long_stage_costs_few_requests(attempt: Attempt) -> None:
    attempt.report(1, 8 * 3600.0)
    for minute in range(60):
        attempt.report(minute, (480 - minute) * 60.0)
        assert not attempt.watch((minute + 1) * 60.0)
    assert attempt.store.requests < 3600 / 5
    assert attempt.known.progress  # it was followed


def test_a_stage_that_tells_nothing_costs_few_requests_too(attempt: Attempt) -> None:
    assert not attempt.watch(3600.0)
    assert attempt.store.requests < 3600 / 3


@pytest.mark.parametrize("lasted", [20.0, 100.0, 1000.0])
def test_a_commit_is_seen_at_once_when_it_was_near_and_soon_if_nobody_knew(attempt: Attempt, lasted: float) -> None:
    attempt.watch(lasted)
    attempt.commit()
    assert attempt.watch(lasted + max(0.5, lasted / 50) + 0.5)


def test_a_commit_that_progress_foretold_is_seen_within_a_second(attempt: Attempt) -> None:
    attempt.watch(2000.0)
    attempt.report(98, 20.0)
    attempt.watch(2000.0 + 45.0)  # progress is read, and the time that it foretold is over
    attempt.commit()
    assert attempt.watch(attempt.now + 1.0)
