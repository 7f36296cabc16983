"""What every launcher promises: of processes, of a cluster, and the fake that stands for them in tests."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_cluster import FakeApi
from fake_launcher import FakeLauncher

from isc_jobs.controller.kubernetes.launcher import KubernetesLauncher
from isc_jobs.controller.launcher import Launcher
from isc_jobs.controller.lease import FencedStore, Lease, LeaseLost
from isc_jobs.controller.local import LocalLauncher
from isc_jobs.controller.plan import Attempt
from isc_jobs.spec.pipeline import build_pipeline, find_stage
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import StageSpec
from isc_jobs.store import Store, open_store

SETTINGS = load_settings("demo", [f"cluster.images.{name}=image" for name in ("controller", "data", "train")])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FencedStore:
    monkeypatch.setenv("ISC_JOBS_WORK", str(tmp_path / "work"))
    opened = open_store(str(tmp_path / "store"))
    lease = Lease(opened, "mine")
    lease.acquire()
    return FencedStore(opened, lease)


@pytest.fixture(params=["local", "kubernetes", "fake"])
def launcher(request: pytest.FixtureRequest, store: FencedStore) -> Iterator[Launcher]:
    if request.param == "local":
        yield LocalLauncher(store, "mine", print)
        return
    if request.param == "fake":
        yield FakeLauncher(store)
        return
    api = FakeApi()
    launcher = KubernetesLauncher(store, "mine", SETTINGS.cluster, api, print, sleep=lambda _: None)
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


def test_an_attempt_is_started_once_and_claims_its_number(launcher: Launcher, store: FencedStore) -> None:
    assert launcher.attempts() == ()
    launcher.start(spec(store))
    launcher.start(spec(store))
    assert [(a.stage, a.number, a.exit_code) for a in launcher.attempts()] == [("download", 1, None)]
    with pytest.raises(LeaseLost):
        launcher.start(spec(store, source="/another"))
    launcher.close()


def test_a_stopped_attempt_leaves_its_reason_and_logs(launcher: Launcher, store: FencedStore) -> None:
    launcher.start(spec(store))
    launcher.stop("download", 1, "said nothing")
    launcher.stop("download", 1, "again")
    launcher.stop("download", 9, "never begun")
    assert [a.exit_code is not None for a in launcher.attempts()] == [True]
    assert "exit_code" in json.loads(store.get("runs/mine/download/attempt-1/termination.json")[0])


def test_a_second_attempt_stands_beside_the_first(launcher: Launcher, store: FencedStore) -> None:
    launcher.start(spec(store))
    launcher.stop_all("the run is cancelled")
    launcher.start(spec(store, attempt=2))
    launcher.tidy()
    assert [a.number for a in launcher.attempts()] == [1, 2]
    launcher.close()
    assert all(a.exit_code is not None for a in until(launcher.attempts))
