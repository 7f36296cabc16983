"""What the controller decides, as a pure function."""

import pytest

from isc_jobs.controller.plan import Attempt, Fail, Finish, Kill, Observed, Policy, Start, plan
from isc_jobs.spec.pipeline import build_pipeline
from isc_jobs.spec.profile import load_settings

PIPELINE = build_pipeline(load_settings("isc21"), "source", "digest")
NAMES = [stage.name for stage in PIPELINE]
POLICY = Policy()


def ended(code: int, number: int = 1, when: float = 0.0) -> Attempt:
    return Attempt(stage="download", number=number, exit_code=code, reason="why", ended=when)


RUNNING = Attempt(stage="download", number=1, exit_code=None, sign_of_life=0.0)


def test_stages_start_in_order_of_their_inputs() -> None:
    for done, name in enumerate(NAMES):
        assert plan(PIPELINE, Observed(frozenset(NAMES[:done])), 0, POLICY) == [Start(name, 1)]
    assert plan(PIPELINE, Observed(frozenset(NAMES)), 0, POLICY) == [Finish()]


def test_nothing_starts_twice() -> None:
    assert plan(PIPELINE, Observed(frozenset(), (RUNNING,)), 0, POLICY) == []


@pytest.mark.parametrize("code", [64, 65, 70])
def test_permanent_failures_end_the_run_with_their_code(code: int) -> None:
    assert plan(PIPELINE, Observed(frozenset(), (ended(code),)), 9, POLICY) == [Fail("download", "download: why", code)]


def test_a_temporary_failure_waits_then_is_retried_until_the_budget_ends() -> None:
    past = (ended(75, 1, 10.0),)
    assert plan(PIPELINE, Observed(frozenset(), past), 11, POLICY) == []
    assert plan(PIPELINE, Observed(frozenset(), past), 12, POLICY) == [Start("download", 2)]
    many = tuple(ended(75, number) for number in range(1, 7))
    assert plan(PIPELINE, Observed(frozenset(), many), 1e6, POLICY) == [
        Fail("download", "download: why (6 attempts)", 75)
    ]


def test_a_disruption_is_retried_at_once_and_a_crash_twice() -> None:
    disrupted = tuple(ended(143, number) for number in range(1, 6))
    assert plan(PIPELINE, Observed(frozenset(), disrupted), 0, POLICY) == [Start("download", 6)]
    crashed = tuple(ended(-9, number) for number in range(1, 4))
    assert plan(PIPELINE, Observed(frozenset(), crashed), 1e6, POLICY) == [
        Fail("download", "download: why (3 attempts)", 70)
    ]


def test_exit_0_without_a_commit_is_no_success() -> None:
    assert plan(PIPELINE, Observed(frozenset(), (ended(0),)), 1e6, POLICY) == [Start("download", 2)]


def test_a_silent_attempt_is_ended() -> None:
    actions = plan(PIPELINE, Observed(frozenset(), (RUNNING,)), POLICY.silence_s + 1, POLICY)
    assert actions == [Kill("download", 1, "said nothing for 1800 s", 124)]


def test_a_stage_that_hangs_again_and_again_ends_the_run_as_temporary() -> None:
    hung = tuple(ended(124, number) for number in range(1, 7))
    assert plan(PIPELINE, Observed(frozenset(), hung[:5]), 1e6, POLICY) == [Start("download", 6)]
    assert plan(PIPELINE, Observed(frozenset(), hung), 1e6, POLICY) == [
        Fail("download", "download: why (6 attempts)", 75)
    ]


def test_disruptions_do_not_lengthen_the_wait_after_a_failure() -> None:
    past = (*(ended(143, number, 1.0) for number in range(1, 20)), ended(75, 20, 10.0))
    observed = Observed(frozenset(), past)
    assert plan(PIPELINE, observed, 10 + POLICY.backoff_s - 0.1, POLICY) == []
    assert plan(PIPELINE, observed, 10 + POLICY.backoff_s, POLICY) == [Start("download", 21)]


def test_attempts_are_numbered_after_those_of_earlier_controllers() -> None:
    used = {"download": 3, "train-v83": 7}
    assert plan(PIPELINE, Observed(frozenset()), 0, POLICY, used=used) == [Start("download", 4)]
    adopted = Attempt(stage="download", number=3, exit_code=143, ended=0.0)
    assert plan(PIPELINE, Observed(frozenset(), (adopted,)), 0, POLICY, used=used) == [Start("download", 4)]
