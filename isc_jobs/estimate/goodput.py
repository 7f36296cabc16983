"""What failures cost a predicted run, by how often its trainings write checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from isc_jobs.controller.plan import Policy
from isc_jobs.estimate.bounds import slowest
from isc_jobs.estimate.failures import Job, Outcome, Rates, expected_total, simulate
from isc_jobs.estimate.machine import Machine
from isc_jobs.estimate.predict import Prediction
from isc_jobs.estimate.work import DataSize, pods_of, shards_of
from isc_jobs.spec.checkpoint_interval import checkpoint_interval
from isc_jobs.spec.pipeline import Pipeline
from isc_jobs.spec.settings import Compute, Settings

INTERVALS_S = (30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)


@dataclass(frozen=True, kw_only=True)
class Goodput:
    """Of some simulated runs with one checkpoint interval; hours are means."""

    name: str
    hours: float
    formula_hours: float | None  # Daly's mean, where it applies
    share: float  # of the time that counts
    lowest: float  # of any run
    highest: float
    lost_hours: float
    checkpoint_hours: float
    restart_hours: float
    waited_hours: float
    failures: float
    given_up: int  # runs that the planner ended


def goodput_table(
    pipeline: Pipeline, predictions: Sequence[Prediction], settings: Settings, data: DataSize, machine: Machine,
    rates: Rates, *, runs: int, seed: int,
) -> list[Goodput]:  # fmt: skip
    """A row for each fixed interval, for the settings' own, and for Young and Daly's at these rates."""
    compute = settings.compute

    def at(interval_s: float | None, between_hours: float | None) -> dict[str, Job]:
        return {p.work.stage: job_of(p, settings, data, machine, rates, interval_s, between_hours) for p in predictions}

    choices: dict[str, dict[str, Job]] = {_name(seconds): at(seconds, None) for seconds in INTERVALS_S}
    choices[f"the settings': {_setting(compute)}"] = at(None, compute.mean_hours_between_failures)
    choices["Young and Daly, at these rates"] = at(None, None)
    return [_row(name, pipeline, jobs, rates, range(seed, seed + runs)) for name, jobs in choices.items()]


def job_of(
    prediction: Prediction, settings: Settings, data: DataSize, machine: Machine, rates: Rates,
    interval_s: float | None, between_hours: float | None,
) -> Job:  # fmt: skip
    """A stage as failures see it. Trainings write checkpoints after ``interval_s``, or at the settings' pace, or, for
    no ``between_hours``, at the best for the rates; shared work is kept shard by shard; the rest begins anew.
    """
    work, pods = prediction.work, pods_of(settings, prediction.work.program)
    busy = slowest(prediction.resources.values()).middle
    nodes = pods.pods / machine.pods_per_node(pods)
    job = Job(work_s=busy, nodes=nodes, restart_s=prediction.start.middle)
    if work.program in {"download", "extract"}:
        shards = shards_of(("train", "reference"), data, settings.data.shard_megabytes).shards
        return Job(work_s=busy, nodes=nodes, restart_s=job.restart_s, interval_s=busy * min(1.0, pods.pods / shards))
    if work.program != "train":
        return job
    cost, every = prediction.checkpoint.middle, settings.compute.checkpoint_every_steps
    if interval_s is None:
        between = rates.between_s(nodes) if between_hours is None else between_hours * 3600
        interval_s = checkpoint_interval(cost, min(between, 1e9))
        if between_hours is not None and every != "auto":
            interval_s = busy / work.steps * every
    return Job(work_s=busy, nodes=nodes, restart_s=job.restart_s, interval_s=interval_s, checkpoint_s=cost)


def _row(name: str, pipeline: Pipeline, jobs: Mapping[str, Job], rates: Rates, seeds: range) -> Goodput:
    outcomes = [simulate(pipeline, jobs, rates, Policy(), seed) for seed in seeds]
    ended = [outcome for outcome in outcomes if not outcome.reason] or outcomes
    shares = [outcome.goodput for outcome in ended]

    def hours(part: str) -> float:
        return fmean(getattr(outcome, part) for outcome in ended) / 3600

    applies = not rates.preemptions and not rates.hung
    return Goodput(
        name=name, hours=hours("total"), formula_hours=expected_total(jobs, rates) / 3600 if applies else None,
        share=fmean(shares), lowest=min(shares), highest=max(shares), lost_hours=hours("lost"),
        checkpoint_hours=hours("checkpoints"), restart_hours=hours("restarts"), waited_hours=hours("waited"),
        failures=fmean(outcome.failures for outcome in ended), given_up=sum(map(_is_given_up, outcomes)),
    )  # fmt: skip


def _is_given_up(outcome: Outcome) -> bool:
    return bool(outcome.reason)


def _name(seconds: float) -> str:
    return f"every {seconds:.0f} s" if seconds < 60 else f"every {seconds / 60:.0f} min"


def _setting(compute: Compute) -> str:
    every = compute.checkpoint_every_steps
    return f"auto for {compute.mean_hours_between_failures:g} h" if every == "auto" else f"every {every} steps"
