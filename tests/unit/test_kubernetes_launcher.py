"""The cluster's launcher on an API server in memory: starts, takes over, explains, ends, keeps logs."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_cluster import FakeApi

from isc_jobs.controller.kubernetes.launcher import KubernetesLauncher
from isc_jobs.controller.kubernetes.logs import controller_log, longer
from isc_jobs.controller.lease import FencedStore, Lease, LeaseLost
from isc_jobs.controller.manifests import attempt_objects
from isc_jobs.spec.errors import TemporaryError, UsageError
from isc_jobs.spec.pipeline import build_pipeline, find_stage
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.store import open_store
from isc_jobs.store.artifacts import publish

IMAGES = [f"cluster.images.{name}=image@sha256:{'0' * 64}" for name in ("controller", "data", "train")]
SETTINGS = load_settings(
    "demo", [*IMAGES, "compute.processes=4", "cluster.stages.train.pods=2", "cluster.stages.download.pods=2"]
)
JOB = "isc-mine-download-a1"


class World:
    """A launcher, its cluster, store and clock."""

    def __init__(self, folder: Path) -> None:
        self.store = open_store(str(folder / "store"))
        self.api = FakeApi()
        self.now = 0.0
        self.said: list[str] = []
        self.launchers: list[KubernetesLauncher] = []
        self.lease = Lease(self.store, "mine")
        self.lease.acquire()
        self.launcher = self.another()

    def another(self) -> KubernetesLauncher:
        """As a controller that takes the run over has it."""
        self.launchers.append(KubernetesLauncher(
            FencedStore(self.store, self.lease), "mine", SETTINGS.cluster, self.api, self.said.append,
            clock=lambda: self.now, sleep=self.wait,
        ))  # fmt: skip
        return self.launchers[-1]

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def spec(self, stage: str = "download", attempt: int = 1) -> StageSpec:
        pipeline = build_pipeline(SETTINGS, "s3://photos", "0" * 64)
        return find_stage(pipeline, stage).spec("mine", attempt, self.store.uri)

    def start(self, stage: str = "download", phase: str = "Running") -> list[str]:
        """Start an attempt whose pods are then in this phase; their names."""
        self.launcher.start(self.spec(stage))
        names = sorted(name for name in self.api.names("Pod") if f"-{stage}-a" in name)
        for name in names:
            self.api.set_pod(name, phase)
        self.launcher.attempts()
        return names

    def code(self, wait: float = 31.0) -> int | None:
        """The attempt's exit code, after a list of pods."""
        self.now += wait
        self.launcher._changed.set()  # as the watch does, whose thread may not have been up to it yet
        return self.launcher.attempts()[-1].exit_code

    def kept(self, name: str, stage: str = "download") -> bytes:
        return self.store.get(f"runs/mine/{stage}/attempt-1/{name}")[0]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for launcher in world.launchers:
        launcher.leave()
    world.api.close()


def test_an_attempt_is_objects_that_the_run_owns(world: World) -> None:
    assert world.start() == [f"{JOB}-0", f"{JOB}-1"]
    owner = world.api.objects["ConfigMap", "isc-mine"]["metadata"]["uid"]
    for kind in ("ConfigMap", "Job"):
        assert world.api.objects[kind, JOB]["metadata"]["ownerReferences"][0]["uid"] == owner
    assert json.loads(world.kept("spec.json"))["stage"] == "download"
    assert world.code() is None


def test_an_attempt_ends_with_its_pods_and_leaves_nothing_but_logs(world: World) -> None:
    for name in world.start():
        world.api.logs[name] = name.encode()
        world.api.set_pod(name, "Succeeded")
    assert world.code() == 0
    assert JOB in world.api.names("Job")  # what follows need not wait for the tidying
    world.launcher.tidy()
    assert [gzip.decompress(world.kept(f"log-{rank}.txt.gz")) for rank in (0, 1)] == [
        f"{JOB}-{n}".encode() for n in (0, 1)
    ]
    assert world.api.names("Job") | world.api.names("Pod") == set()
    assert world.api.names("ConfigMap") == {"isc-mine"}


def test_a_commit_ends_an_attempt_before_its_pods_have_gone(world: World, tmp_path: Path) -> None:
    names = world.start()
    (tmp_path / "out").mkdir()
    ref = InputRef(stage="download", key=world.spec().key)
    publish(world.store, ref, tmp_path / "out", run="mine", attempt=1, summary={}, provenance={}, seconds=1)
    assert world.code(wait=1) == 0
    world.launcher.tidy()
    assert JOB in world.api.names("Job")  # the pods have not said their last words
    for name in names:
        world.api.logs[name] = b"committed"
        world.api.set_pod(name, "Succeeded")
    world.now += 31
    world.launcher.attempts()
    world.launcher.tidy()
    assert gzip.decompress(world.kept("log-1.txt.gz")) == b"committed"
    assert JOB not in world.api.names("Job")


def test_the_commit_of_another_attempt_is_not_this_ones(world: World, tmp_path: Path) -> None:
    world.start()
    (tmp_path / "out").mkdir()
    ref = InputRef(stage="download", key=world.spec().key)
    publish(world.store, ref, tmp_path / "out", run="other", attempt=1, summary={}, provenance={}, seconds=1)
    assert world.code() is None


def test_an_outage_while_pods_end_loses_neither_reason_nor_logs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = world.start()
    ended = {"exitCode": 65, "reason": "Error", "message": json.dumps({"exit_code": 65, "reason": "bad pictures"})}
    world.api.set_pod(first, "Failed", containerStatuses=[{"state": {"terminated": ended}}])
    world.api.logs[first] = b"what happened"
    with monkeypatch.context() as patched:
        patched.setattr(world.api, "delete", lambda *_: (_ for _ in ()).throw(TemporaryError("away")))
        with pytest.raises(TemporaryError):
            world.code()
    world.api.delete("batch/v1", "Job", JOB)  # it had been done
    assert world.code() == 65
    assert json.loads(world.kept("termination.json"))["reason"] == "bad pictures"
    assert gzip.decompress(world.kept("log-0.txt.gz")) == b"what happened"


def test_a_controller_that_dies_while_pods_end_is_followed_by_one_that_waits_for_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.start()
    for name in (first, second):
        world.api.objects["Pod", name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    class Killed(Exception):
        pass

    def killed(_: float) -> None:
        raise Killed

    monkeypatch.setattr(world.launcher, "_sleep", killed)
    with pytest.raises(Killed):
        world.launcher.stop("download", 1, "why")
    assert JOB in world.api.names("ConfigMap")
    successor = world.another()
    assert successor.attempts()[0].exit_code == 143
    assert JOB not in world.api.names("ConfigMap")


def test_processes_of_a_pod_have_logs_of_their_own(world: World) -> None:
    master, worker = world.start("train-v83")
    world.api.logs |= {master: b"0| a\n1| b\n", worker: b"agent\n2| c\n3| d\n"}
    for name in (master, worker):
        world.api.set_pod(name, "Succeeded")
    assert world.code() == 0
    world.launcher.tidy()
    kept = [gzip.decompress(world.kept(f"log-{rank}.txt.gz", "train-v83")) for rank in range(4)]
    assert kept == [b"a\n", b"b\n", b"agent\nc\n", b"d\n"]


def test_a_rank_that_dies_ends_the_whole_gang_at_once(world: World) -> None:
    master, worker = world.start("train-v83")
    ended = {"exitCode": 137, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}
    world.api.set_pod(worker, "Failed", containerStatuses=[{"state": {"terminated": ended}}])
    world.api.logs[master] = b"waiting for a peer"
    assert world.code(wait=31) == 137
    assert world.api.names("Pod") == set()
    assert gzip.decompress(world.kept("log-0.txt.gz", "train-v83")) == b"waiting for a peer"


def test_a_deleted_pod_is_a_disruption(world: World) -> None:
    name = world.start()[1]
    world.api.delete("v1", "Pod", name)
    assert world.code() == 143
    kept = {"exit_code": 143, "reason": f"pod {name} was deleted", "pod": name, "evidence": "it is not there any more"}
    assert json.loads(world.kept("termination.json")) == kept


def test_a_deleted_job_is_a_disruption_even_before_it_had_pods(world: World) -> None:
    world.launcher.start(world.spec())
    world.api.delete("batch/v1", "Job", JOB)
    assert world.code() == 143


@pytest.mark.parametrize("seen", ["gone", "terminating"])
def test_deleting_the_runs_configmap_ends_the_run(world: World, seen: str) -> None:
    names = world.start()
    if seen == "terminating":
        for name in names:
            world.api.objects["Pod", name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        del world.api.objects["ConfigMap", "isc-mine"]
        assert world.code() == 64
        return
    world.api.delete("v1", "ConfigMap", "isc-mine")
    assert world.api.names("Pod") == set()
    assert world.code() == 64
    assert "isc-mine was deleted, which ends the run" in world.launcher.attempts()[0].reason


def test_another_controller_takes_over_and_starts_nothing_twice(world: World) -> None:
    world.start()
    world.launcher.leave()
    assert "goes on in the cluster" in world.said[-1]
    successor = world.another()
    assert [(a.stage, a.number, a.exit_code) for a in successor.attempts()] == [("download", 1, None)]
    successor.start(world.spec())
    assert len(world.api.names("Pod")) == 2


def test_an_attempt_of_another_specification_is_refused(world: World) -> None:
    world.start()
    other = world.spec().model_copy(update={"key": "other"})
    with pytest.raises(LeaseLost, match="was begun by another controller"):
        world.launcher.start(other)
    world.store.delete(f"{other.prefix}/spec.json")
    with pytest.raises(UsageError, match="is there with another specification"):
        world.launcher.start(other)


def test_a_run_of_the_same_name_in_another_store_is_left_alone(world: World, tmp_path: Path) -> None:
    world.start()
    other = open_store(str(tmp_path / "other"))
    with pytest.raises(UsageError, match="choose another --run"):
        KubernetesLauncher(FencedStore(other, world.lease), "mine", SETTINGS.cluster, world.api, world.said.append)


def test_why_a_pod_waits_is_said_soon_and_seldom(world: World) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    for name in world.start(phase="Pending"):
        world.api.set_pod(name, "Pending", conditions=[condition])
    for _ in range(5):
        assert world.code(wait=11) is None
    assert world.said == ["download  waits: Unschedulable: 0/1 nodes"]
    assert world.launcher.attempts()[0].sign_of_life == world.now  # what waits is not silent
    assert world.code(wait=SETTINGS.cluster.pending_seconds) == 64
    assert world.launcher.attempts()[0].reason == "Unschedulable: 0/1 nodes"
    assert world.api.names("Job") == set()


def test_what_admission_refuses_ends_the_attempt_with_its_sentence(world: World) -> None:
    world.launcher.start(world.spec())
    for name in list(world.api.names("Pod")):
        del world.api.objects["Pod", name]
    world.api.add_event(world.api.objects["Job", JOB], "FailedCreate", 'violates PodSecurity "restricted"')
    world.api.add_event({"metadata": {"uid": "earlier", "name": JOB}}, "FailedCreate", "of an earlier job of this name")
    assert world.code(wait=11) == 64
    assert world.launcher.attempts()[0].reason == 'pods are refused: violates PodSecurity "restricted"'


def test_a_worker_that_is_refused_is_said_though_the_master_runs(world: World) -> None:
    _, worker = world.start("train-v83")
    del world.api.objects["Pod", worker]
    world.launcher = world.another()  # which has never seen the worker
    job = world.api.objects["PyTorchJob", "isc-mine-train-v83-a1"]
    world.api.add_event(job, "FailedCreatePod", 'violates PodSecurity "restricted"')
    assert world.code() == 64
    assert world.api.names("Pod") == set()


def test_a_queue_that_has_not_admitted_the_job_is_named(world: World) -> None:
    world.launcher.start(world.spec())
    world.api.objects["Job", JOB]["spec"]["suspend"] = True
    for name in list(world.api.names("Pod")):
        del world.api.objects["Pod", name]
    assert world.code(wait=11) is None
    assert world.said == ["download  waits: suspended: a queue has not admitted it yet"]


def test_a_lost_nodes_logs_are_not_waited_for_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = world.start()
    world.api.objects["Pod", first]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    def no_kubelet(_: str, __: str | None = None) -> bytes:
        raise TemporaryError("cluster: log: 502 Bad Gateway")

    monkeypatch.setattr(world.api, "pod_log", no_kubelet)
    with pytest.raises(TemporaryError):
        world.code()
    assert world.code(wait=SETTINGS.cluster.grace_seconds + 1) == 143
    assert world.said[-1].startswith("download  log is left out, it cannot be read")
    assert world.api.names("Pod") == set()


def test_pods_of_a_node_that_does_not_answer_count_as_living_until_it_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = world.start()
    world.api.objects["Pod", first]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    monkeypatch.setattr(world.api, "delete", lambda *_: None)  # nobody is there to end what is to be deleted
    assert world.code() is None
    assert world.said[-1] == f"download  waits: pod {first} has to end first: delete it or its node if that is lost"
    monkeypatch.undo()
    for name in world.api.names("Pod"):
        world.api.delete("v1", "Pod", name)
    assert world.code() == 143
    assert json.loads(world.kept("termination.json"))["pod"] == first


def test_pods_that_never_go_are_waited_for_a_quarter_of_an_hour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = world.start()
    world.api.objects["Pod", first]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    monkeypatch.setattr(world.api, "delete", lambda *_: None)
    waited = [world.code() for _ in range(5)]
    assert waited == [None] * 5
    assert world.code(wait=900) == 143


def test_a_run_that_is_ended_does_not_wait_for_a_lost_node(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start()
    monkeypatch.setattr(world.api, "delete", lambda *_: None)
    world.launcher.stop_all("the run is cancelled")
    assert world.launcher.attempts()[-1].exit_code == 143


def test_what_a_controller_that_lost_the_run_has_started_is_ended(world: World) -> None:
    world.start()
    stray = world.spec(attempt=2)
    for item in attempt_objects(stray, SETTINGS.cluster):
        world.api.create(item)
    assert len(world.api.names("Pod")) == 4
    world.now += 31
    numbers = {a.number: a.exit_code for a in world.launcher.attempts()}
    assert numbers == {1: None, 2: 143}
    assert len(world.api.names("Pod")) == 2


def test_a_paused_controller_creates_nothing_once_it_is_followed(world: World) -> None:
    lease, world.lease._renewed = Lease(world.store, "mine"), 0.0
    lease.acquire()  # the first one counts as gone: it is this very process
    with pytest.raises(LeaseLost):
        world.launcher.start(world.spec())
    assert world.api.names("Job") == set()


def test_a_controllers_log_is_of_all_its_pods_in_their_order(world: World) -> None:
    for name, born in (("b", "2026-01-01T00:00:01Z"), ("a", "2026-01-01T00:00:02Z")):
        metadata = {"name": name, "uid": name, "labels": {"isc-jobs.io/controller": "mine"}, "creationTimestamp": born}
        world.api.objects["Pod", name] = {"kind": "Pod", "metadata": metadata, "status": {"phase": "Running"}}
        world.api.logs[name] = name.encode()
    assert controller_log(world.api, "mine") == b"ba"


def test_progress_of_all_parts_is_a_sign_of_life(world: World) -> None:
    world.start()
    for part in (0, 1):
        state = {"step": 3, "total": 10, "rate": 1.5, "eta_s": 4.0 + part, "unix_time": 0.0}
        world.store.put(f"runs/mine/download/attempt-1/progress-{part}.json", json.dumps(state).encode())
    world.now = 50
    assert world.launcher.attempts()[0].sign_of_life == 50
    assert world.said == ["download  6/20  3.0/s  5 s left"]
    world.now = 99
    assert world.launcher.attempts()[0].sign_of_life == 50


def test_of_two_reads_of_a_log_the_longer_is_kept() -> None:
    assert longer({0: b"long", 1: b""}, {0: b"", 1: b"x", 2: b"y"}) == {0: b"long", 1: b"x", 2: b"y"}


def test_closing_keeps_the_controllers_log_and_deletes_all(world: World) -> None:
    world.start()
    pod = {"kind": "Pod", "metadata": {"name": "controller", "uid": "u", "labels": {"isc-jobs.io/controller": "mine"}}}
    world.api.objects["Pod", "controller"] = pod | {"status": {"phase": "Running"}}
    world.api.logs["controller"] = b"download  starts"
    world.launcher.close()
    assert world.api.names("ConfigMap") | world.api.names("Job") == set()
    assert world.store.get("runs/mine/controller.txt")[0] == b"download  starts"
