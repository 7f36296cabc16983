"""What every launcher promises: of processes, of a cluster, and the fake that stands for them in tests."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from fake_cluster import FakeApi
from fake_launcher import FakeLauncher
from stores import held

from isc_jobs.controller.kubernetes.launcher import KubernetesLauncher
from isc_jobs.controller.launcher import Launcher
from isc_jobs.controller.lease import FencedStore, LeaseLost
from isc_jobs.controller.local import LocalLauncher
from isc_jobs.controller.plan import Attempt
from isc_jobs.spec.pipeline import build_pipeline, find_stage
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import StageSpec
from isc_jobs.store import Store

__all__ = ["held"]

SETTINGS = load_settings("demo", [f"cluster.images.{name}=image" for name in ("controller", "data", "train")])


@pytest.fixture(params=["local", "kubernetes", "fake"])
def launcher(request: pytest.FixtureRequest, held: FencedStore) -> Iterator[Launcher]:
    if request.param == "local":
        yield LocalLauncher(held, "mine", print)
        return
    if request.param == "fake":
        yield FakeLauncher(held)
        return
    api = FakeApi()
    launcher = KubernetesLauncher(held, "mine", SETTINGS.cluster, api, print, sleep=lambda _: None)
    yield launcher
    launcher.leave()
    api.close()


def spec(store: Store, attempt: int = 1, source: str = "/absent") -> StageSpec:
    stage = find_stage(build_pipeline(SETTINGS, source, "0" * 64), "download")
    return stage.spec("mine", attempt, store.uri)


def until(look: Callable[[], tuple[Attempt, ...]]) -> tuple[Attempt, ...]:
    """The attempts once all have ended."""
    deadline = time.monotonic() + 60
    while any(attempt.exit_code is None for attempt in look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return look()


def test_an_attempt_is_started_once_and_claims_its_number(launcher: Launcher, held: FencedStore) -> None:
    assert launcher.attempts() == ()
    launcher.start(spec(held))
    launcher.start(spec(held))
    assert [(a.stage, a.number, a.exit_code) for a in launcher.attempts()] == [("download", 1, None)]
    with pytest.raises(LeaseLost):
        launcher.start(spec(held, source="/another"))
    launcher.close()


def test_a_stopped_attempt_leaves_its_reason_and_logs(launcher: Launcher, held: FencedStore) -> None:
    launcher.start(spec(held))
    launcher.stop("download", 1, "said nothing", 124)
    launcher.stop("download", 1, "again")
    launcher.stop("download", 9, "never begun")
    assert [a.exit_code for a in launcher.attempts()] == [124]
    kept = json.loads(held.get("runs/mine/download/attempt-1/termination.json")[0])
    assert kept["exit_code"] == 124
    assert kept["reason"].startswith("said nothing")


def test_an_attempt_that_is_told_to_stop_was_disrupted(launcher: Launcher, held: FencedStore) -> None:
    launcher.start(spec(held))
    launcher.stop_all("the controller was interrupted")
    assert [a.exit_code for a in launcher.attempts()] == [143]


def test_a_second_attempt_stands_beside_the_first(launcher: Launcher, held: FencedStore) -> None:
    launcher.start(spec(held))
    launcher.stop_all("the run is cancelled")
    launcher.start(spec(held, attempt=2))
    launcher.tidy()
    assert [a.number for a in launcher.attempts()] == [1, 2]
    launcher.close()
    assert all(a.exit_code is not None for a in until(launcher.attempts))
