"""The decision: what to do next, as a pure function of what was observed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from isc_jobs.spec.errors import ExitCode
from isc_jobs.spec.pipeline import Pipeline, Stage


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt of a stage, as the launcher tells it; times in seconds of one clock."""

    stage: str
    number: int
    key: str = ""  # of its output
    exit_code: int | None  # None while it runs; negative: ended by that signal
    reason: str = ""
    pod: str = ""  # the one that it ended with, in a cluster,
    evidence: str = ""  # and what of its status tells how
    sign_of_life: float = 0.0  # when it last said something
    where: str = ""  # while it runs: the process or pods, nodes and GPUs,
    waits: str = ""  # and why they do not run yet
    ended: float = 0.0


@dataclass(frozen=True)
class Observed:
    """Stages whose output is committed, and the attempts of this run since the controller began."""

    committed: frozenset[str]
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True)
class Policy:
    """How failures are met."""

    user_failures: int = 2  # crashes and kills that are retried, per stage
    temporary_failures: int = 5  # exits 75 and hangs that are retried, per stage
    disruptions: int = 20  # exits 143 that are retried, per stage: without charge, not without end
    backoff_s: float = 2.0  # before the first retry, doubled each time
    silence_s: float = 1800.0
    patience_s: float = 0.0  # how long store or cluster may be away before the controller ends
    parallel: int = 1


@dataclass(frozen=True)
class Start:
    """Start an attempt of a stage."""

    stage: str
    attempt: int


@dataclass(frozen=True)
class Kill:
    """End an attempt, which counts as this exit code."""

    stage: str
    attempt: int
    reason: str
    exit_code: int = ExitCode.TERMINATED


@dataclass(frozen=True)
class Fail:
    """End the run with this sentence and exit code."""

    stage: str
    reason: str
    exit_code: int


@dataclass(frozen=True)
class Finish:
    """All is committed."""


Action = Start | Kill | Fail | Finish
Kind = Literal["permanent", "temporary", "disruption", "user"]
_KINDS: dict[int, Kind] = {
    **dict.fromkeys(map(int, (ExitCode.USAGE, ExitCode.DATA, ExitCode.INTERNAL)), "permanent"),
    **dict.fromkeys(map(int, (ExitCode.TEMPORARY, ExitCode.SILENT)), "temporary"),
    **dict.fromkeys((int(ExitCode.TERMINATED), -15), "disruption"),
}


def plan(
    pipeline: Pipeline, observed: Observed, now: float, policy: Policy, *, used: Mapping[str, int] | None = None
) -> list[Action]:  # fmt: skip
    """Actions in order. ``pipeline`` is the part that shall run; inputs outside it are committed.

    ``used`` holds the highest attempt number of each stage under earlier controllers.
    """
    names = {stage.name for stage in pipeline}
    missing = [stage for stage in pipeline if stage.name not in observed.committed]
    if not missing:
        return [Finish()]
    running = [attempt for attempt in observed.attempts if attempt.exit_code is None]
    silent = [Kill(a.stage, a.number, f"said nothing for {policy.silence_s:.0f} s", ExitCode.SILENT)
              for a in running if now - a.sign_of_life > policy.silence_s]  # fmt: skip
    ready = [stage for stage in missing if _is_ready(stage, names, observed.committed)]
    starts: list[Action] = []
    for stage in ready:
        if any(attempt.stage == stage.name for attempt in running):
            continue
        past = [attempt for attempt in observed.attempts if attempt.stage == stage.name]
        failure = _failure(past, policy)
        if failure is not None:
            return [*(Kill(a.stage, a.number, "the run failed") for a in running), failure]
        free = policy.parallel - len(running) - len(starts)
        if free > 0 and now >= _not_before(past, policy):
            numbers = [(used or {}).get(stage.name, 0), *(attempt.number for attempt in past)]
            starts.append(Start(stage.name, 1 + max(numbers)))
    return [*silent, *starts]


def _is_ready(stage: Stage, names: set[str], committed: frozenset[str]) -> bool:
    return all(ref.stage in committed or ref.stage not in names for ref in stage.inputs.values())


def _failure(past: list[Attempt], policy: Policy) -> Fail | None:
    """Whether the last attempt ends the run."""
    if not past:
        return None
    last, kinds = past[-1], [failure_kind(attempt.exit_code) for attempt in past]
    budgets: dict[Kind, int] = {
        "user": policy.user_failures,
        "temporary": policy.temporary_failures,
        "disruption": policy.disruptions,
    }
    kind = kinds[-1]
    if kind != "permanent" and kinds.count(kind) <= budgets[kind]:
        return None
    tried = "" if kind == "permanent" else f" ({len(past)} attempts)"
    code = {"permanent": last.exit_code, "temporary": ExitCode.TEMPORARY}.get(kind) or ExitCode.INTERNAL
    return Fail(last.stage, f"{last.stage}: {last.reason or describe_exit(last.exit_code)}{tried}", int(code))


def failure_kind(code: int | None) -> Kind:
    """Of an attempt that ended with this code and no commit: which budget it is counted in, if it may be retried."""
    return "user" if code is None else _KINDS.get(code, "user")


def _not_before(past: list[Attempt], policy: Policy) -> float:
    charged = [attempt for attempt in past if failure_kind(attempt.exit_code) != "disruption"]
    if not charged or charged[-1] is not past[-1]:
        return 0.0
    return past[-1].ended + policy.backoff_s * 2.0 ** (len(charged) - 1)


def describe_exit(code: int | None) -> str:
    """An exit code in words."""
    if code == 0:
        return "exited without a commit"
    if code in {-9, 137}:
        return "was killed (out of memory?)"
    return f"ended by signal {-code}" if code is not None and code < 0 else f"exited with code {code}"
