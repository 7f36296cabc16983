"""The planner over random histories: attempts end in all ways, controllers come and go, outputs are lost."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from isc_jobs.controller.plan import Action, Attempt, Fail, Finish, Kill, Observed, Policy, Start, plan
from isc_jobs.spec.pipeline import build_pipeline
from isc_jobs.spec.profile import load_settings

PIPELINE = build_pipeline(load_settings("demo"), "/photos", "0" * 64)
INPUTS = {stage.name: {ref.stage for ref in stage.inputs.values()} for stage in PIPELINE}
CODES = [0, 1, 64, 65, 70, 75, 134, 137, 139, 143, -9, -11, -15]
_PERMANENT, _CHARGED_ELSEWHERE = {64, 65, 70}, {75, 124, 143, -15}
_PICK = st.integers(min_value=0, max_value=10**6)


class Histories(RuleBasedStateMachine):
    """What a launcher and a store would show, and what must hold whatever they show."""

    @initialize(parallel=st.integers(1, 3), disruptions=st.integers(0, 3))
    def begin(self, parallel: int, disruptions: int) -> None:
        self.policy = Policy(parallel=parallel, disruptions=disruptions)
        self.now = 0.0
        self.committed: set[str] = set()
        self.attempts: list[Attempt] = []  # known to this controller
        self.used: dict[str, int] = {}
        self.ever: set[tuple[str, int]] = set()
        self.failed: Fail | None = None
        self.finished = False

    @property
    def live(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.exit_code is None]

    @precondition(lambda self: self.failed is None and not self.finished)
    @rule()
    def tick(self) -> None:
        observed = Observed(frozenset(self.committed), tuple(self.attempts))
        for action in plan(PIPELINE, observed, self.now, self.policy, used=self.used):
            self._apply(action)

    def _apply(self, action: Action) -> None:
        match action:
            case Start(stage, number):
                assert stage not in self.committed
                assert INPUTS[stage] <= self.committed
                assert stage not in {attempt.stage for attempt in self.live}
                assert (stage, number) not in self.ever
                ended = [attempt.exit_code for attempt in self.attempts if attempt.stage == stage]
                assert not _PERMANENT & set(ended)
                assert (
                    sum(code not in {*_CHARGED_ELSEWHERE, *_PERMANENT} for code in ended) <= self.policy.user_failures
                )
                assert ended.count(75) + ended.count(124) <= self.policy.temporary_failures
                self.ever.add((stage, number))
                self.attempts.append(Attempt(stage=stage, number=number, exit_code=None, sign_of_life=self.now))
            case Kill(stage, number, _, exit_code):
                assert (stage, number) in {(attempt.stage, attempt.number) for attempt in self.live}
                self._end(self._find(stage, number), exit_code)
            case Fail(stage, reason, code):
                assert stage not in self.committed
                assert code != 0
                assert stage in reason
                assert not self.live
                self.failed = action
            case Finish():
                assert self.committed >= INPUTS.keys()
                self.finished = True

    def _find(self, stage: str, number: int) -> Attempt:
        return next(a for a in self.attempts if (a.stage, a.number) == (stage, number))

    def _end(self, attempt: Attempt, code: int) -> None:
        self.attempts[self.attempts.index(attempt)] = replace(attempt, exit_code=code, ended=self.now)

    @precondition(lambda self: self.live)
    @rule(pick=_PICK, code=st.sampled_from(CODES))
    def an_attempt_ends(self, pick: int, code: int) -> None:
        self._end(self.live[pick % len(self.live)], code)

    @precondition(lambda self: self.live)
    @rule(pick=_PICK, ends=st.booleans())
    def an_attempt_commits(self, pick: int, ends: bool) -> None:
        attempt = self.live[pick % len(self.live)]
        self.committed.add(attempt.stage)
        if ends:
            self._end(attempt, 0)

    @precondition(lambda self: self.live)
    @rule(pick=_PICK)
    def an_attempt_speaks(self, pick: int) -> None:
        attempt = self.live[pick % len(self.live)]
        self.attempts[self.attempts.index(attempt)] = replace(attempt, sign_of_life=self.now)

    @rule(seconds=st.sampled_from([0.1, 3.0, 60.0, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.finished)
    @rule(takes_over=st.booleans(), lost=st.lists(st.sampled_from(sorted(INPUTS)), max_size=1))
    def another_controller_begins(self, takes_over: bool, lost: list[str]) -> None:
        """In a cluster it takes attempts over; on one machine they end with their controller and are forgotten."""
        self.committed -= set(lost)
        for stage, number in self.ever:
            self.used[stage] = max(self.used.get(stage, 0), number)
        self.attempts = list(self.attempts) if takes_over else []
        self.failed = None

    @invariant()
    def at_most_one_attempt_of_a_stage_lives(self) -> None:
        if hasattr(self, "attempts"):
            stages = [attempt.stage for attempt in self.live]
            assert len(stages) == len(set(stages))
            assert len(stages) <= self.policy.parallel

    def teardown(self) -> None:
        """Left alone, with attempts that succeed, the run ends: none waits for ever."""
        if not hasattr(self, "attempts"):
            return
        for _ in range(4 * len(INPUTS)):
            if self.failed or self.finished:
                return
            for attempt in self.live:
                self.committed.add(attempt.stage)
                self._end(attempt, 0)
            self.now += 100_000
            self.tick()
        raise AssertionError("the run does not end")


Histories.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
test_histories = Histories.TestCase
