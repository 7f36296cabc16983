"""Runs on a real cluster: pods, PyTorchJobs, S3; nothing here is a stand-in."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from commands import command, isc_jobs
from deployment import MISSING, Deployment, deployment, kubectl

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(MISSING), reason=f"CLUSTER TESTS SKIPPED: {', '.join(MISSING)} not set"),
]
__all__ = ["deployment"]


def objects(run: str) -> str:
    """Names of everything of a run in the namespace."""
    return kubectl(
        "get", "configmaps,jobs,pytorchjobs,pods", "--namespace", "isc-jobs", "--selector", f"isc-jobs.io/run={run}",
        "--output", "name", "--ignore-not-found",
    )  # fmt: skip


def wait_for_pod(run: str, name: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        phase = kubectl(
            "get", "pods", "--namespace", "isc-jobs", "--selector", f"isc-jobs.io/run={run}",
            "--output", "jsonpath={range .items[*]}{.metadata.name}={.status.phase} {end}",
        )  # fmt: skip
        if f"{name}=Running" in phase:
            return
        time.sleep(0.5)
    raise AssertionError(f"no running pod {name}: {objects(run)}")


def test_a_whole_run_equals_the_local_one_with_the_same_processes(deployment: Deployment, tmp_path: Path) -> None:
    ran = isc_jobs(*deployment.arguments("whole"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "report: s3://" in ran.stdout
    log = isc_jobs("logs", "whole", "train-v83", "--rank", 1, "--store", deployment.store)
    assert "rank 1 of 2 on cpu" in log.stdout
    local = isc_jobs(
        *(part for part in deployment.arguments("local") if part not in {"--launcher", "kubernetes"}),
        "--launcher", "local", "--source", deployment.source, "--store", tmp_path / "store",
    )  # fmt: skip
    assert local.returncode == 0, local.stdout + local.stderr
    runs = [(deployment.store, "whole"), (str(tmp_path / "store"), "local")]
    scores = [json.loads(isc_jobs("status", run, "--store", store, "--json").stdout) for store, run in runs]
    found = [next(s["summary"] for s in status["stages"] if s["stage"] == "evaluate") for status in scores]
    assert found[0] == pytest.approx(found[1], abs=0.02)
    assert "pod/" not in objects("whole")


def test_a_deleted_worker_begins_a_new_attempt_from_the_checkpoint(deployment: Deployment) -> None:
    arguments = deployment.arguments("disrupted", "--until", "train-v83", "--set", "trainings.v83.sample_size=320")
    controller = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_pod("disrupted", "isc-disrupted-train-v83-a1-worker-0")
    time.sleep(8)
    kubectl("delete", "pod", "isc-disrupted-train-v83-a1-worker-0", "--namespace", "isc-jobs", "--wait=false")
    output, _ = controller.communicate(timeout=600)
    assert controller.returncode == 0, output
    assert "attempt 1 failed: " in output
    assert "train-v83  finished" in output


@pytest.mark.parametrize(
    ("name", "overrides", "code", "sentence"),
    [
        ("image", ["cluster.images.data=registry.invalid/nothing:none"], 64, "ErrImagePull"),
        ("secret", ["cluster.s3_secret=absent"], 64, 'secret "absent" not found'),
        ("place", ["cluster.stages.download.cpu='400'", "cluster.pending_seconds=15"], 64, "Insufficient cpu"),
        ("memory", ["cluster.stages.download.memory=24Mi"], 70, "out of memory"),
    ],
)
def test_what_cannot_run_is_said_and_leaves_nothing(
    deployment: Deployment, name: str, overrides: list[str], code: int, sentence: str
) -> None:
    settings = [part for value in [*overrides, "data.max_pixels=99999999"] for part in ("--set", value)]
    ran = isc_jobs(*deployment.arguments(name, "--until", "download", *settings))
    assert (ran.returncode, sentence in ran.stderr) == (code, True), ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    assert "pod/" not in objects(name)
    assert "job" not in objects(name)


def test_cancel_ends_the_run_and_leaves_others_alone(deployment: Deployment) -> None:
    slow = ["--until", "train-v83", "--set", "trainings.v83.sample_size=3200"]
    controllers = {
        run: subprocess.Popen(
            command(*deployment.arguments(run, *slow, "--set", f"trainings.v83.seeds=[{seed},{seed}]")),
            stdout=subprocess.PIPE, text=True,
        )
        for seed, run in enumerate(("mine", "other"), start=1)
    }  # fmt: skip
    for run in controllers:
        wait_for_pod(run, f"isc-{run}-train-v83-a1-master-0")
    assert isc_jobs("cancel", "mine", "--store", deployment.store).returncode == 0
    controllers["mine"].communicate(timeout=180)
    assert controllers["mine"].returncode == 130
    assert "pod/" not in objects("mine")
    assert "isc-other-train-v83-a1-master-0" in objects("other")
    isc_jobs("cancel", "other", "--store", deployment.store)
    controllers["other"].communicate(timeout=180)


def test_the_controllers_account_may_do_what_it_does_and_no_more(deployment: Deployment) -> None:
    account = "--as=system:serviceaccount:isc-jobs:isc-jobs-controller"
    rights = kubectl("auth", "can-i", "--list", "--namespace", "isc-jobs", account)
    assert "secrets" not in rights
    for verb, kind, answer in (("create", "jobs", "yes"), ("get", "secrets", "no"), ("create", "pods", "no")):
        done = subprocess.run(
            ["kubectl", "auth", "can-i", verb, kind, "--namespace", "isc-jobs", account],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.strip() == answer
