"""How often a training writes checkpoints: Young and Daly's interval, its bounds, and that no weight depends on it."""

import math
from pathlib import Path

import pytest
import torch
from photo_samples import build_trainer, compute, samples, silent, training

from isc_jobs.spec import checkpoint_interval as intervals
from isc_jobs.spec.checkpoint_interval import checkpoint_interval, daly, expected_seconds, young
from isc_jobs.spec.errors import UsageError
from isc_jobs.training.checkpoint_pace import CheckpointPace
from isc_jobs.training.distributed import World
from isc_jobs.training.loop import train

ALONE = World(0, 1, torch.device("cpu"))
HOUR = 3600.0


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pace(clock: Clock, *overrides: str) -> CheckpointPace:
    return CheckpointPace(compute("checkpoint_every_steps=auto", "mean_hours_between_failures=8", *overrides), clock)


def save(at: CheckpointPace, clock: Clock, seconds: float) -> None:
    with at.saving():
        clock.now += seconds


def test_dalys_examples_are_met() -> None:
    """The three figures of Daly 2006: a checkpoint of 5 minutes, and a failure each 24 hours, 6 hours, 15 minutes."""
    for between, minutes in ((24 * HOUR, 117), (6 * HOUR, 57), (HOUR / 4, 9.1)):
        assert daly(300, between) / 60 == pytest.approx(minutes, abs=0.6)


def test_for_a_cheap_checkpoint_it_is_youngs_interval() -> None:
    assert young(2, 8 * HOUR) == math.sqrt(2 * 2 * 8 * HOUR)
    assert daly(2, 8 * HOUR) == pytest.approx(young(2, 8 * HOUR), rel=0.01)


def test_no_other_interval_takes_less_time_on_average() -> None:
    best = daly(60, 4 * HOUR)
    times = [expected_seconds(HOUR, best * factor, cost_s=60, restart_s=120, between_failures_s=4 * HOUR)
             for factor in (0.5, 0.9, 1.0, 1.1, 2.0)]  # fmt: skip
    assert min(times) == times[2]
    assert times[0] > times[1]
    assert times[4] > times[3]


def test_the_interval_is_bounded_on_both_sides() -> None:
    assert checkpoint_interval(0, 24 * HOUR) == 30
    assert checkpoint_interval(5, 24 * HOUR) == daly(5, 24 * HOUR)
    assert checkpoint_interval(600, 24 * HOUR) == 1800
    assert checkpoint_interval(600, 100) == 100  # nothing lasts that long: once between two failures


def test_the_pace_follows_what_checkpoints_cost() -> None:
    clock = Clock()
    at = pace(clock)
    clock.now += 29
    assert not at.is_due(500)
    clock.now += 1
    assert at.is_due(1)  # the first, to learn what one costs
    save(at, clock, 4.0)
    assert at.interval_s == daly(4, 8 * HOUR)
    clock.now += at.interval_s - 1
    assert not at.is_due(2)
    clock.now += 1
    assert at.is_due(3)
    for _ in range(4):
        save(at, clock, 4.0)
    save(at, clock, 400.0)
    assert at.interval_s == daly(4, 8 * HOUR)  # one that met a slow store is not believed


def test_a_number_of_steps_is_kept_to_whatever_the_clock_says() -> None:
    clock = Clock()
    at = pace(clock, "checkpoint_every_steps=3")
    clock.now += 10 * HOUR
    assert [step for step in range(1, 10) if at.is_due(step)] == [3, 6, 9]


@pytest.mark.parametrize("value", ["0", "sometimes", "null"])
def test_what_is_neither_a_number_nor_auto_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="checkpoint_every_steps"):
        compute(f"checkpoint_every_steps={value}")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is a checkpoint's time."""
    monkeypatch.setattr(intervals, "SHORTEST_S", 0.0)
    monkeypatch.setattr(intervals, "LONGEST_S", 0.0)


@pytest.mark.usefixtures("always")
def test_weights_do_not_depend_on_when_checkpoints_are_written(small_photos: Path) -> None:
    saved, states = [], []
    for every in ("auto", "4", "1000"):
        chosen, steps = training("v83", "epochs=2", "restart_epoch=1"), list[int]()
        run = build_trainer(chosen, world=ALONE, machine=compute(f"checkpoint_every_steps={every}"))
        hooks = silent()
        hooks.save = lambda step, _, steps=steps: steps.append(step)  # type: ignore[misc]
        train(run, samples(chosen, small_photos), hooks)
        saved.append(steps)
        states.append(run.model.state_dict())
    assert saved == [[1, 2, 3, 4, 5], [4], []]
    assert all(torch.equal(states[0][name], other[name]) for other in states[1:] for name in states[0])
