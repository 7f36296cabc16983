"""Pods on the bad day: what a cluster takes away, holds back or loses, and what is said of it."""

import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from commands import isc_jobs
from deployment import (
    NAMESPACE,
    ON_A_CLUSTER,
    Deployment,
    applied,
    at_most_one_attempt,
    eventually,
    kubectl,
    pods,
)
from fault_proxy import FaultProxy, fault_proxy
from points import ALL
from tally import record
from trouble import Run, evict, frozen, kubelet, node_of, operator, ready, registry, runtime_of, trainings, urgent_pod

from isc_jobs.controller.manifest import read_manifest

pytestmark = ON_A_CLUSTER
LONG = pytest.mark.skipif(not ALL, reason="minutes of waiting: with CHAOS=all")


def test_pods_that_are_evicted_preempted_and_drained_are_begun_again_without_charge(
    deployment: Deployment, tmp_path: Path
) -> None:
    run = Run(deployment, "taken", "trainings.v83.sample_size=800")
    with at_most_one_attempt("taken"):
        evict(run.trains(1))
        began = time.monotonic()
        run.says("train-v83  attempt 1 ended: pod")
        worker = run.trains(2)
        record("pod evicted, Kubernetes", lost=0, repeated=0, seconds=time.monotonic() - began)
        node = node_of(worker)
        began = time.monotonic()
        with applied(urgent_pod("taken", node)):
            run.says("train-v83  attempt 2 ended: pod")
        worker = run.trains(3)
        record("pod preempted by a higher priority, Kubernetes", lost=0, repeated=0, seconds=time.monotonic() - began)
        began = time.monotonic()
        try:
            kubectl("drain", node, "--pod-selector=isc-jobs.io/run=taken", "--force", "--delete-emptydir-data",
                    "--ignore-daemonsets")  # fmt: skip
            run.says("train-v83  waits: Unschedulable")
        finally:
            kubectl("uncordon", node)
        run.ends("node drained, Kubernetes", began)
    attempts = run.attempts()
    assert [kind for kind, _, _ in attempts] == ["disruption"] * 3 + ["finished"]
    assert [pod.startswith(f"isc-taken-train-v83-a{n}-") for n, (_, pod, _) in enumerate(attempts[:3], 1)] == [True] * 3
    told = ["EvictionByEvictionAPI", "PreemptionByScheduler", "EvictionByEvictionAPI"]
    assert [word in evidence for word, (_, _, evidence) in zip(told, attempts, strict=False)] == [True] * 3, attempts
    shown = isc_jobs("status", "taken", "--store", deployment.store).stdout
    assert "attempt 2: disruption: pod isc-taken-train-v83-a2-" in shown
    run.equals_the_local_one(tmp_path)


FULL = f"""
apiVersion: v1
kind: ResourceQuota
metadata: {{name: full, namespace: {NAMESPACE}}}
spec: {{hard: {{pods: "0"}}}}
"""


def test_an_operator_that_is_away_and_a_quota_that_fills_mid_run_are_said_and_waited_for(
    deployment: Deployment,
) -> None:
    assert isc_jobs(*deployment.arguments("before", "--until", "download")).returncode == 0
    namespace, name = operator()
    scale = ("scale", "deployment", name, "--namespace", namespace)
    kubectl(*scale, "--replicas=0")
    kubectl("wait", "pods", "--all", "--for=delete", "--namespace", namespace, "--timeout=60s")
    began = time.monotonic()
    try:
        run = Run(deployment, "held", "trainings.v83.lr=0.0011")
        run.says("trying again: ")
        with applied(FULL):
            kubectl(*scale, "--replicas=1")
            run.says("exceeded quota: full")
    finally:
        kubectl(*scale, "--replicas=1")
    run.ends("operator stopped, then quota full, mid-run, Kubernetes", began)
    assert [kind for kind, _, _ in run.attempts()] == ["finished"]


@pytest.fixture
def s3_proxy() -> Iterator[FaultProxy]:
    """In front of the S3 server, where pods find it too; for programs that are started in the test."""
    real = os.environ["AWS_ENDPOINT_URL_S3"]
    host = urlsplit(real).hostname or ""
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            pytest.skip(f"{host} is not this machine: no proxy can stand beside its S3 server")
    with fault_proxy(real, host=host) as proxy:
        yield proxy


@LONG
def test_an_s3_endpoint_that_is_away_for_two_minutes_costs_no_result(
    deployment: Deployment, s3_proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("trainings.v83.sample_size=480", "trainings.v83.lr=0.0012")
    through = f"cluster.environment.AWS_ENDPOINT_URL_S3={s3_proxy.address}"
    with monkeypatch.context() as patched, at_most_one_attempt("cut"):
        patched.setenv("AWS_ENDPOINT_URL_S3", s3_proxy.address)
        run = Run(deployment, "cut", *settings, through)
        patched.undo()
        run.trains(1)
        s3_proxy.close()
        time.sleep(120)
        s3_proxy.open()
        run.ends("S3 away for two minutes, Kubernetes", time.monotonic())
    assert any("trying again" in line for line in run.lines), run.lines
    kinds = [kind for kind, _, _ in run.attempts()]
    assert (kinds[-1], set(kinds[:-1]) <= {"temporary"}) == ("finished", True), kinds
    run.settings = settings
    run.equals_the_local_one(tmp_path)


@LONG
def test_an_image_that_is_deleted_between_attempts_is_said_and_nothing_is_lost(deployment: Deployment) -> None:
    import yaml

    images = yaml.safe_load((Path(__file__).parents[2] / "images.yaml").read_text())["cluster"]["images"]
    name = images["train"].partition("@")[0].rpartition("/")[2].partition(":")[0]
    digest = images["train"].rpartition("@")[2]
    content, kind = registry("GET", f"{name}/manifests/{digest}")
    manifest = json.loads(content)
    manifest["annotations"] = {"isc-jobs.io/test": "goes"}
    body = json.dumps(manifest).encode()
    registry("PUT", f"{name}/manifests/goes", body, kind)
    reference = f"{os.environ['TEST_REGISTRY']}/{name}:goes"
    run = Run(deployment, "gone-image", "trainings.v83.sample_size=480", "trainings.v83.lr=0.0013",
              f"cluster.images.train={reference}")  # fmt: skip
    worker = run.trains(1)
    node = node_of(worker)
    command = runtime_of(node)
    registry("DELETE", f"{name}/manifests/sha256:{hashlib.sha256(body).hexdigest()}")
    subprocess.run([*command, "images", "rm", "--sync", reference], check=True)
    began = time.monotonic()
    kubectl("delete", "pod", worker, "--namespace", NAMESPACE, "--wait=false")
    run.ends("image deleted between attempts, Kubernetes", began, code=64)
    assert "goes" in read_manifest(run.store, "gone-image")[0].reason
    assert [kind for kind, _, _ in run.attempts()] == ["disruption", "permanent"]
    assert run.checkpoints()  # with the image back the same command goes on from here


@LONG
def test_a_node_that_does_not_answer_never_runs_two_attempts(deployment: Deployment, tmp_path: Path) -> None:
    soon = [{"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
            for name in ("not-ready", "unreachable")]  # fmt: skip
    settings = ("trainings.v83.sample_size=480", "trainings.v83.lr=0.0014")
    place = (f"cluster.tolerations={json.dumps(soon)}", "cluster.grace_seconds=10")
    with at_most_one_attempt("lost-node"):
        run = Run(deployment, "lost-node", *settings, *place)
        node = node_of(run.trains(1))
        with frozen([kubelet(), *trainings()]):
            eventually(lambda: not ready(node), "the node is still thought to be ready")
            eventually(lambda: all("deletionTimestamp" in pod["metadata"] for pod in pods("lost-node")), "no eviction")
            run.says("train-v83  waits: pod isc-lost-node-train-v83-a1-", 300)
        run.ends("node does not answer, Kubernetes", time.monotonic())
    (first, pod, _), *_, (last, _, _) = run.attempts()
    assert (first, pod.startswith("isc-lost-node-train-v83-a1-"), last) == ("disruption", True, "finished")
    run.settings = settings
    run.equals_the_local_one(tmp_path)
