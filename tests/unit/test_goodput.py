"""Runs that fail by a simulated clock: the planner's promises, and Young and Daly's formulas."""

import json
import math
from dataclasses import asdict
from statistics import fmean

import pytest

from isc_jobs import cli
from isc_jobs.controller.plan import Policy
from isc_jobs.estimate.failures import Job, Outcome, Rates, expected_total, simulate
from isc_jobs.spec.checkpoint_interval import daly
from isc_jobs.spec.pipeline import build_pipeline
from isc_jobs.spec.profile import load_settings

PIPELINE = build_pipeline(load_settings("isc21"), "", "")
NAMES = [stage.name for stage in PIPELINE]
HOUR = 3600.0
PATIENT = Policy(disruptions=10**6, temporary_failures=10**6, backoff_s=0)
BROKEN = Rates(failures=8, noticed_s=0)  # on two nodes: every 1.5 hours


def jobs(interval_s: float = 450, cost_s: float = 20) -> dict[str, Job]:
    """Trainings of 20 hours on two nodes, and short stages."""
    long = Job(work_s=20 * HOUR, nodes=2, restart_s=120, interval_s=interval_s, checkpoint_s=cost_s)
    return {name: long if name.startswith("train") else Job(work_s=600, restart_s=60) for name in NAMES}


def runs(chosen: dict[str, Job], rates: Rates, count: int = 30) -> list[Outcome]:
    return [simulate(PIPELINE, chosen, rates, PATIENT, seed) for seed in range(count)]


def test_without_failures_a_run_takes_its_work_its_starts_and_its_checkpoints() -> None:
    outcome = simulate(PIPELINE, jobs(), Rates(), Policy(), 0)
    assert outcome.starts == NAMES
    assert outcome.useful == 4 * 20 * HOUR + 4 * 600
    assert outcome.restarts == 4 * 120 + 4 * 60
    assert outcome.checkpoints == 4 * 159 * 20  # none after the last bit of work
    assert (outcome.lost, outcome.waited, outcome.failures, outcome.goodput) == (
        0, 0, 0, outcome.useful / outcome.clock,
    )  # fmt: skip


@pytest.mark.parametrize("rates", [BROKEN, Rates(preemptions=8), Rates(failures=4, preemptions=4, hung=0.3)])
def test_no_finished_stage_runs_again_and_no_second_goes_uncounted(rates: Rates) -> None:
    for outcome in runs(jobs(), rates, 5):
        assert outcome.failures > 20
        assert len(outcome.starts) == len(NAMES) + outcome.failures
        assert outcome.starts == sorted(outcome.starts, key=NAMES.index)  # once a stage is over it never comes again
        assert outcome.useful == pytest.approx(4 * 20 * HOUR + 4 * 600)
        assert outcome.total == pytest.approx(outcome.clock)


@pytest.mark.parametrize("interval_s", [60, 450, 1800])
def test_the_mean_is_that_of_dalys_formula(interval_s: float) -> None:
    chosen = jobs(interval_s)
    mean = fmean(outcome.total for outcome in runs(chosen, BROKEN))
    assert mean == pytest.approx(expected_total(chosen, BROKEN), rel=0.01)


def test_goodput_is_greatest_near_young_and_dalys_interval() -> None:
    best = daly(20, BROKEN.between_s(2))
    assert best == pytest.approx(452, abs=1)
    goodput = {factor: fmean(outcome.goodput for outcome in runs(jobs(best * factor), BROKEN))
               for factor in (1 / 8, 1 / 3, 1, 3, 8)}  # fmt: skip
    assert max(goodput, key=goodput.__getitem__) == 1
    assert goodput[1 / 8] < goodput[1 / 3] < goodput[1] - 0.01
    assert goodput[1] - 0.01 > goodput[3] > goodput[8]


def test_a_preemption_with_a_warning_loses_no_work() -> None:
    outcomes = runs(jobs(1800), Rates(preemptions=8), 5)
    assert all(outcome.lost == 0 and outcome.checkpoints > 0 for outcome in outcomes)
    assert fmean(outcome.goodput for outcome in outcomes) > fmean(o.goodput for o in runs(jobs(1800), BROKEN, 5)) + 0.05


def test_without_checkpoints_a_training_begins_anew() -> None:
    chosen = {name: Job(work_s=HOUR, nodes=2) for name in NAMES}
    outcome = simulate(PIPELINE, chosen, BROKEN, PATIENT, 1)
    assert outcome.failures > 0
    assert outcome.lost == pytest.approx(outcome.clock - len(NAMES) * HOUR)


def test_an_attempt_that_falls_silent_is_ended_by_the_planner() -> None:
    rates = Rates(failures=8, hung=1.0, noticed_s=0)
    outcome = simulate(PIPELINE, jobs(), rates, PATIENT, 0)
    assert outcome.waited == pytest.approx(outcome.failures * (PATIENT.silence_s + 1))


def test_a_run_that_fails_too_often_is_given_up_as_the_planner_would() -> None:
    outcome = simulate(PIPELINE, jobs(), Rates(failures=100), Policy(), 0)
    assert outcome.reason == "train-v83: exited with code 143 (21 attempts)"
    assert outcome.starts.count("train-v83") == 21


def test_a_seed_is_a_run() -> None:
    first, again, other = (simulate(PIPELINE, jobs(), BROKEN, PATIENT, seed) for seed in (3, 3, 4))
    assert asdict(first) == asdict(again) != asdict(other)


def test_failures_add_up_over_nodes_and_preemptions_are_none() -> None:
    assert Rates(failures=3, preemptions=2).between_s(4) == 86_400 / 12
    assert math.isinf(Rates(preemptions=2).between_s(4))


def test_the_command_compares_checkpoint_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["estimate", "--failures-per-node-day", "4", "--runs", "10", "--nodes", "1", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["goodput"]}
    best = rows["Young and Daly, at these rates"]
    assert best["share"] > max(rows["every 30 s"]["share"], rows["every 30 min"]["share"])
    assert best["hours"] == pytest.approx(best["formula_hours"], rel=0.1)
    assert min(row["formula_hours"] for row in rows.values()) == best["formula_hours"]
    assert "the settings': auto for 24 h" in rows
