"""Runs that meet trouble on a real cluster: killed controllers, ranks and pods; what cannot start; cancel."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import isc_jobs
from deployment import (
    NAMESPACE,
    ON_A_CLUSTER,
    Deployment,
    applied,
    at_most_one_attempt,
    digests,
    eventually,
    is_empty,
    kubectl,
    objects,
    pods,
    wait_for_pod,
)  # fmt: skip

from isc_jobs.store import open_store

pytestmark = ON_A_CLUSTER
KILL_TRAINING = """
import os, pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if b"isc_jobs.stages.train" in path.read_bytes() and int(path.parent.name) != os.getpid():
        os.kill(int(path.parent.name), 9)
"""


def commits(deployment: Deployment) -> dict[str, str]:
    """Entity tags of all commits."""
    infos = open_store(deployment.store).list("artifacts/")
    return {info.key: info.etag for info in infos if info.key.endswith("/commit.json")}


def test_a_controller_that_is_killed_again_and_again_reruns_nothing(deployment: Deployment) -> None:
    settings = ("data.max_pixels=99999001",)
    with at_most_one_attempt("killed"):
        finished: dict[str, str] = {}
        for seconds in (1.5, 4, 7, 13, 19):  # while it connects, starts, follows, tidies, as chance will have it
            controller = deployment.start("killed", "--until", "train-v86", settings=settings)
            time.sleep(seconds)
            controller.kill()
            controller.communicate()
            assert finished.items() <= commits(deployment).items()
            finished = commits(deployment)
        last = isc_jobs(*deployment.arguments("killed", "--until", "train-v86", settings=settings))
    assert last.returncode == 0, last.stdout + last.stderr
    assert finished.items() <= commits(deployment).items()
    specs = (info.key for info in open_store(deployment.store).list("runs/killed/") if info.key.endswith("/spec.json"))
    numbers = [int(key.split("attempt-")[1].split("/")[0]) for key in specs]
    assert max(numbers) <= 2  # a claimed attempt whose controller died before it made objects is begun anew
    eventually(lambda: is_empty("killed"), objects("killed"))


def test_a_killed_rank_and_a_deleted_worker_cost_no_result(deployment: Deployment, tmp_path: Path) -> None:
    settings = ("trainings.v83.sample_size=640",)
    deployment.local(tmp_path / "store", "--until", "train-v83", settings=settings)
    controller = deployment.start("disrupted", "--until", "train-v83", settings=settings)
    store = open_store(deployment.store)

    def checkpoints() -> set[str]:
        return {info.key for info in store.list("checkpoints/") if info.key.endswith("/marker.json")}

    def disturb(attempt: int, action: Callable[[str], object]) -> None:
        worker = f"isc-disrupted-train-v83-a{attempt}-worker-0"
        wait_for_pod("disrupted", worker)
        before = checkpoints()
        eventually(lambda: len(checkpoints() - before) >= 2, "no checkpoint")
        action(worker)

    exec_ = ("exec", "--namespace", NAMESPACE, "--container", "pytorch")
    with at_most_one_attempt("disrupted"):
        disturb(1, lambda worker: kubectl(*exec_, worker, "--", "python", "-c", KILL_TRAINING))
        disturb(2, lambda worker: kubectl("delete", "pod", worker, "--namespace", NAMESPACE, "--wait=false"))
        output, _ = controller.communicate(timeout=600)
    assert controller.returncode == 0, output
    assert "train-v83  attempt 1 failed: " in output
    assert "train-v83  attempt 2 ended: " in output
    resumed = isc_jobs("logs", "disrupted", "train-v83", "--rank", 1, "--store", deployment.store).stdout
    assert "from step 0" not in resumed
    name = "train-v83/checkpoint.pth.tar"
    assert digests(deployment.store, "disrupted")[name] == digests(str(tmp_path / "store"), "local")[name]
    ended = isc_jobs("logs", "disrupted", "train-v83", "--attempt", 1, "--rank", 0, "--store", deployment.store).stdout
    assert "rank 0 of 2" in ended  # the master's log was kept though its peer died


def fails(deployment: Deployment, run: str, *settings: str, until: str = "download") -> tuple[int, str]:
    """Exit code and words of a run that cannot go on; nothing of it is left running."""
    fresh = f"data.max_pixels={99_000_000 + sum(map(ord, run))}"
    ran = isc_jobs(*deployment.arguments(run, "--until", until, settings=(*settings, fresh)))
    assert "Traceback" not in ran.stderr
    eventually(lambda: is_empty(run), objects(run))
    return ran.returncode, ran.stderr


@pytest.mark.parametrize(
    ("name", "settings", "code", "sentence"),
    [
        ("image", ["cluster.images.data=$TEST_REGISTRY/isc-jobs-data:absent"], 64, "not found"),
        ("secret", ["cluster.s3_secret=absent"], 64, 'secret "absent" not found'),
        ("place", ["cluster.stages.download.cpu='400'", "cluster.pending_seconds=15"], 64, "Insufficient cpu"),
        ("node", ["cluster.stages.download.node_selector={of: nobody}", "cluster.pending_seconds=15"], 64,
         "didn't match Pod's node affinity/selector"),
        ("memory", ["cluster.stages.download.memory=24Mi"], 70, "out of memory: raise cluster.stages.*.memory"),
        ("account", ["cluster.service_account=absent"], 64, 'serviceaccount "absent" not found'),
    ],
)  # fmt: skip
def test_what_cannot_run_is_said_and_leaves_nothing(
    deployment: Deployment, name: str, settings: list[str], code: int, sentence: str
) -> None:
    import os

    found, said = fails(deployment, name, *map(os.path.expandvars, settings))
    assert (found, sentence in said) == (code, True), said


QUOTA = f"""
apiVersion: v1
kind: ResourceQuota
metadata: {{name: tight, namespace: {NAMESPACE}}}
spec: {{hard: {{requests.memory: 512Mi}}}}
"""
POLICY = f"""
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: no-jobs-here}}
spec:
  matchConstraints:
    resourceRules: [{{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}}]
  validations: [{{expression: "object.metadata.namespace != '{NAMESPACE}'", message: not in this house}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: no-jobs-here}}
spec: {{policyName: no-jobs-here, validationActions: [Deny]}}
"""


def test_a_quota_is_waited_for_and_then_said(deployment: Deployment) -> None:
    with applied(QUOTA):
        code, said = fails(deployment, "quota", "cluster.pending_seconds=15")
    assert (code, "exceeded quota: tight" in said) == (64, True), said


def test_what_admission_refuses_is_said_with_its_words(deployment: Deployment) -> None:
    with applied(POLICY):
        time.sleep(3)  # policies take a moment to be known
        code, said = fails(deployment, "policy")
    assert (code, "not in this house" in said) == (64, True), said


def test_a_pod_security_level_that_the_operator_breaks_is_said(deployment: Deployment) -> None:
    label = ("label", "namespace", NAMESPACE, "--overwrite")
    assert isc_jobs(*deployment.arguments("data", "--until", "download")).returncode == 0
    kubectl(*label, "pod-security.kubernetes.io/enforce=restricted")
    try:
        ran = isc_jobs(*deployment.arguments("strict", "--until", "train-v83", settings=("trainings.v83.lr=0.0007",)))
    finally:
        kubectl(*label, "pod-security.kubernetes.io/enforce=baseline")
    assert (ran.returncode, 'violates PodSecurity "restricted' in ran.stderr) == (64, True), ran.stderr
    eventually(lambda: is_empty("strict"), objects("strict"))


def test_a_missing_configmap_is_said(deployment: Deployment) -> None:
    settings = ("cluster.stages.download.node_selector={isc-test: here}", "data.max_pixels=99000777")
    controller = deployment.start("map", "--until", "download", settings=settings)
    eventually(lambda: pods("map"), "no pod")
    kubectl("delete", "configmap", "isc-map-download-a1", "--namespace", NAMESPACE)
    kubectl("label", "nodes", "--all", "isc-test=here")
    try:
        output, _ = controller.communicate(timeout=180)
    finally:
        kubectl("label", "nodes", "--all", "isc-test-")
    assert (controller.returncode, 'configmap "isc-map-download-a1" not found' in output) == (64, True), output
    eventually(lambda: is_empty("map"), objects("map"))


def wait_for_log(deployment: Deployment, run: str) -> None:
    """Until the run's first training says that it has begun."""
    logs = ("logs", run, "train-v83", "--store", deployment.store)
    eventually(lambda: "rank 0 of 2" in isc_jobs(*logs).stdout, f"{run} does not train")


SLOW = ("trainings.v83.sample_size=3200",)


def test_cancel_ends_the_run_and_leaves_others_alone(deployment: Deployment) -> None:
    controllers = {
        run: deployment.start(run, "--until", "train-v83", settings=(*SLOW, f"trainings.v83.seeds=[{seed},{seed}]"))
        for seed, run in enumerate(("mine", "other"), start=1)
    }
    for run in controllers:
        wait_for_log(deployment, run)
    assert isc_jobs("cancel", "mine", "--store", deployment.store).returncode == 0
    controllers["mine"].communicate(timeout=180)
    assert controllers["mine"].returncode == 130
    eventually(lambda: is_empty("mine"), objects("mine"))
    assert "isc-other-train-v83-a1-master-0" in objects("other")
    controllers["other"].kill()  # what a dead controller left is ended by cancel itself
    controllers["other"].communicate()
    assert isc_jobs("cancel", "other", "--store", deployment.store).returncode == 0
    eventually(lambda: is_empty("other"), objects("other"))
    log = isc_jobs("logs", "other", "train-v83", "--store", deployment.store)
    assert "rank 0 of 2" in log.stdout


def test_a_detached_controller_is_followed_when_it_dies_and_goes_when_cancelled(deployment: Deployment) -> None:
    arguments = deployment.arguments("away", "--detach", "--until", "train-v83", settings=SLOW)
    assert isc_jobs(*arguments).returncode == 0
    wait_for_pod("away", "isc-away-train-v83-a1-master-0")
    again = isc_jobs(*arguments)
    assert (again.returncode in {64, 75}, "controller" in again.stderr) == (True, True), again.stderr
    selector = ("--namespace", NAMESPACE, "--selector", "isc-jobs.io/controller=away")
    first = kubectl("get", "pods", *selector, "--output", "jsonpath={.items[0].metadata.uid}")
    kubectl("delete", "pods", *selector, "--grace-period=0", "--force")

    def successor() -> bool:
        found = kubectl("get", "pods", *selector, "--output", "jsonpath={.items[*].metadata.uid}").split()
        return bool(found) and first not in found

    eventually(successor, "nobody follows the controller")
    assert "isc-away-train-v83-a1-master-0" in objects("away")
    assert isc_jobs("cancel", "away", "--store", deployment.store).returncode == 0
    eventually(lambda: is_empty("away"), objects("away"))


def test_sigterm_leaves_the_pods_to_the_next_controller(deployment: Deployment) -> None:
    settings = ("trainings.v83.sample_size=480",)
    controller = deployment.start("left", "--until", "train-v83", settings=settings)
    wait_for_pod("left", "isc-left-train-v83-a1-master-0")
    controller.send_signal(signal.SIGTERM)
    output, _ = controller.communicate(timeout=60)
    assert (controller.returncode, "goes on in the cluster" in output) == (143, True), output
    assert "isc-left-train-v83-a1-master-0" in objects("left")
    resumed = isc_jobs("resume", "left", "--store", deployment.store)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "starts" not in resumed.stdout
    eventually(lambda: is_empty("left"), objects("left"))


def test_deleting_the_runs_configmap_cleans_up(deployment: Deployment) -> None:
    controller = deployment.start("gone", "--until", "train-v83", settings=SLOW)
    wait_for_pod("gone", "isc-gone-train-v83-a1-master-0")
    kubectl("delete", "configmap", "isc-gone", "--namespace", NAMESPACE)
    output, _ = controller.communicate(timeout=180)
    assert (controller.returncode, "isc-gone was deleted, which ends the run" in output) == (64, True), output
    eventually(lambda: is_empty("gone"), objects("gone"))


def test_nothing_of_these_runs_holds_a_secret(deployment: Deployment) -> None:
    said = subprocess.run(
        ["kubectl", "get", "configmaps,jobs,pytorchjobs,pods", "--namespace", NAMESPACE, "--output", "yaml"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    import os

    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in said
    store = open_store(deployment.store)
    for info in store.list("runs/"):
        if info.key.endswith((".json", ".txt")):
            assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in store.get(info.key)[0]
