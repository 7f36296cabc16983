"""The decision: what to do next, as a pure function of what was observed."""

from collections.abc import Mapping
from dataclasses import dataclass

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
    sign_of_life: float = 0.0  # when it last said something
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
    temporary_failures: int = 5  # exits 75 that are retried, per stage
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
    """End an attempt."""

    stage: str
    attempt: int
    reason: str


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
_PERMANENT = {ExitCode.USAGE, ExitCode.DATA, ExitCode.INTERNAL}


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
    silent = [Kill(a.stage, a.number, f"said nothing for {policy.silence_s:.0f} s")
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
    last, kinds = past[-1], [_kind(attempt) for attempt in past]
    budgets = {"user": policy.user_failures, "temporary": policy.temporary_failures, "disruption": policy.disruptions}
    kind = kinds[-1]
    if kind != "permanent" and kinds.count(kind) <= budgets[kind]:
        return None
    tried = "" if kind == "permanent" else f" ({len(past)} attempts)"
    code = last.exit_code if last.exit_code in {*_PERMANENT, ExitCode.TEMPORARY} else int(ExitCode.INTERNAL)
    return Fail(last.stage, f"{last.stage}: {last.reason or describe_exit(last.exit_code)}{tried}", int(code or 0))


def _kind(attempt: Attempt) -> str:
    if attempt.exit_code in _PERMANENT:
        return "permanent"
    if attempt.exit_code == ExitCode.TEMPORARY:
        return "temporary"
    return "disruption" if attempt.exit_code in {ExitCode.TERMINATED, -15} else "user"


def _not_before(past: list[Attempt], policy: Policy) -> float:
    if not past or _kind(past[-1]) == "disruption":
        return 0.0
    return past[-1].ended + policy.backoff_s * 2.0 ** (len(past) - 1)


def describe_exit(code: int | None) -> str:
    """An exit code in words."""
    if code == 0:
        return "exited without a commit"
    if code in {-9, 137}:
        return "was killed (out of memory?)"
    return f"ended by signal {-code}" if code is not None and code < 0 else f"exited with code {code}"
