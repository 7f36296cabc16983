"""A run under failures, by a simulated clock: the controller's planner decides, and attempts fail at drawn times."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random

from isc_jobs.controller.plan import Attempt, Fail, Finish, Kill, Observed, Policy, Start, plan
from isc_jobs.spec.checkpoint_interval import expected_seconds
from isc_jobs.spec.errors import ExitCode
from isc_jobs.spec.pipeline import Pipeline

_DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A stage as failures see it; seconds."""

    work_s: float
    nodes: float = 1.0
    restart_s: float = 0.0  # from an attempt's start to its first work
    interval_s: float = math.inf  # of work between two checkpoints; infinite: it begins anew
    checkpoint_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Of one node, a day."""

    failures: float = 0.0  # without a warning: what no checkpoint holds is lost
    preemptions: float = 0.0  # with time for a checkpoint
    hung: float = 0.0  # share of the failures after which an attempt says nothing and does not end
    noticed_s: float = 60.0  # until a lost node is known to be lost

    def between_s(self, nodes: float) -> float:
        """Mean time between two failures on so many nodes; a preemption, which loses no work, is none."""
        return _DAY_S / (self.failures * nodes) if self.failures else math.inf


@dataclass(kw_only=True)
class Outcome:
    """Where the time of a run went; seconds."""

    useful: float = 0.0
    lost: float = 0.0  # work that was done again
    checkpoints: float = 0.0
    restarts: float = 0.0
    waited: float = 0.0  # until a failure was noticed, and before a retry
    failures: int = 0
    starts: list[str] = field(default_factory=list)  # stages, in the order of their attempts
    reason: str = ""  # why the run ended before its end
    clock: float = 0.0  # when it ended

    @property
    def total(self) -> float:
        """The run's length."""
        return self.useful + self.lost + self.checkpoints + self.restarts + self.waited

    @property
    def goodput(self) -> float:
        """Share of the time that counts."""
        return self.useful / self.total if self.total else 1.0


@dataclass(frozen=True, kw_only=True)
class _End:
    """How an attempt will end, as only the simulation knows."""

    at: float
    code: int
    saved: float  # work that its checkpoints hold, this attempt's alone
    spent: Outcome
    silent_from: float = math.inf


def simulate(pipeline: Pipeline, jobs: Mapping[str, Job], rates: Rates, policy: Policy, seed: int) -> Outcome:
    """One run from its first stage to its end, or to where the planner gives up."""
    return _Run(pipeline, jobs, rates, policy, seed).run()


class _Run:
    def __init__(self, pipeline: Pipeline, jobs: Mapping[str, Job], rates: Rates, policy: Policy, seed: int) -> None:
        self._pipeline, self._jobs, self._rates, self._policy = pipeline, jobs, rates, policy
        self._random, self._now, self._outcome = Random(seed), 0.0, Outcome()
        self._committed: set[str] = set()
        self._done = dict.fromkeys(jobs, 0.0)  # work that checkpoints hold
        self._attempts: list[Attempt] = []
        self._ends: dict[tuple[str, int], _End] = {}

    def run(self) -> Outcome:
        while not self._acted():
            self._advance()
        self._outcome.clock = self._now
        return self._outcome

    def _acted(self) -> bool:
        """Do what the planner says; whether the run has ended."""
        observed = Observed(frozenset(self._committed), tuple(map(self._seen, self._attempts)))
        actions = plan(self._pipeline, observed, self._now, self._policy)
        for action in actions:
            match action:
                case Start(stage=stage, attempt=number):
                    self._start(stage, number)
                case Kill(stage=stage, attempt=number):
                    self._finish(stage, number)
                case Fail(reason=reason):
                    self._outcome.reason = reason
                    return True
                case Finish():
                    return True
        return any(isinstance(action, Kill) for action in actions) and self._acted()

    def _seen(self, attempt: Attempt) -> Attempt:
        """As the controller sees it: alive until now, or until it fell silent."""
        if attempt.exit_code is not None:
            return attempt
        return replace(attempt, sign_of_life=min(self._now, self._ends[attempt.stage, attempt.number].silent_from))

    def _start(self, stage: str, number: int) -> None:
        self._outcome.starts.append(stage)
        self._attempts.append(Attempt(stage=stage, number=number, exit_code=None, sign_of_life=self._now))
        self._ends[stage, number] = self._fate(stage)

    def _advance(self) -> None:
        """To the next moment at which anything is otherwise."""
        running = [a for a in self._attempts if a.exit_code is None]
        if not running:
            self._outcome.waited += self._policy.backoff_s
            self._now += self._policy.backoff_s
            return
        ends = {(a.stage, a.number): self._ends[a.stage, a.number] for a in running}
        self._now = min(
            end.at if math.isinf(end.silent_from) else end.silent_from + self._policy.silence_s + 1
            for end in ends.values()
        )
        for (stage, number), end in ends.items():
            if end.at <= self._now and math.isinf(end.silent_from):
                self._finish(stage, number)

    def _finish(self, stage: str, number: int) -> None:
        end = self._ends[stage, number]
        for name in ("useful", "lost", "checkpoints", "restarts", "waited"):
            setattr(self._outcome, name, getattr(self._outcome, name) + getattr(end.spent, name))
        if not math.isinf(end.silent_from):
            self._outcome.waited += self._now - end.silent_from
        self._done[stage] += end.saved
        if end.code == 0:
            self._committed.add(stage)
        else:
            self._outcome.failures += 1
        self._attempts = [
            replace(a, exit_code=end.code, ended=self._now) if (a.stage, a.number) == (stage, number) else a
            for a in self._attempts
        ]

    def _fate(self, stage: str) -> _End:
        """Draw when the attempt's nodes fail, and see how far it gets."""
        job, rates = self._jobs[stage], self._rates
        broken, preempted = (self._drawn(rate * job.nodes) for rate in (rates.failures, rates.preemptions))
        left = job.work_s - self._done[stage]
        written = math.ceil(left / job.interval_s) - 1 if left > 0 and not math.isinf(job.interval_s) else 0
        needed = job.restart_s + left + max(0, written) * job.checkpoint_s
        if needed <= min(broken, preempted):
            spent = Outcome(useful=left, restarts=job.restart_s, checkpoints=max(0, written) * job.checkpoint_s)
            return _End(at=self._now + needed, code=0, saved=left, spent=spent)
        if preempted < broken:
            return self._warned(job, preempted)
        saved, spent = _reached(job, broken)
        code = int(ExitCode.TERMINATED)
        if self._random.random() < rates.hung:
            return _End(
                at=math.inf, code=int(ExitCode.SILENT), saved=saved, spent=spent, silent_from=self._now + broken
            )
        spent.waited = rates.noticed_s
        return _End(at=self._now + broken + rates.noticed_s, code=code, saved=saved, spent=spent)

    def _warned(self, job: Job, after: float) -> _End:
        """A preemption: the work of the moment is kept too, if the stage writes checkpoints at all."""
        saved, spent = _reached(job, after)
        if not math.isinf(job.interval_s) and after >= job.restart_s:
            saved, spent = saved + spent.lost, replace(spent, useful=spent.useful + spent.lost, lost=0.0)
            spent.checkpoints += job.checkpoint_s
        at = self._now + spent.total
        return _End(at=at, code=int(ExitCode.TERMINATED), saved=saved, spent=spent)

    def _drawn(self, per_day: float) -> float:
        return self._random.expovariate(per_day / _DAY_S) if per_day else math.inf


def _reached(job: Job, after: float) -> tuple[float, Outcome]:
    """Work that is kept if an attempt is broken off after so long, and where its time went."""
    if after < job.restart_s:
        return 0.0, Outcome(restarts=after)
    elapsed = after - job.restart_s
    segments = 0 if math.isinf(job.interval_s) else int(elapsed // (job.interval_s + job.checkpoint_s))
    rest = elapsed - segments * (job.interval_s + job.checkpoint_s) if segments else elapsed
    lost = min(rest, job.interval_s)
    saved = segments * job.interval_s if segments else 0.0
    written = segments * job.checkpoint_s + rest - lost
    return saved, Outcome(useful=saved, lost=lost, restarts=job.restart_s, checkpoints=written)


def expected_total(jobs: Mapping[str, Job], rates: Rates) -> float:
    """The mean length of a run as Daly's formula has it, if nothing is ever given up and all failures come unwarned."""
    whole = 0.0
    for job in jobs.values():
        between = rates.between_s(job.nodes)
        if math.isinf(between):
            whole += job.restart_s + job.work_s
            continue
        interval = min(job.interval_s, job.work_s)
        restart = job.restart_s + rates.noticed_s
        whole += job.restart_s + expected_seconds(
            job.work_s, interval, cost_s=job.checkpoint_s, restart_s=restart, between_failures_s=between
        )
    return whole
