"""Whole runs on a real cluster: from this machine, detached, in several pods; nothing here is a stand-in."""

import json
from pathlib import Path

from commands import isc_jobs
from deployment import (
    NAMESPACE,
    ON_A_CLUSTER,
    TWO_PARTS,
    Deployment,
    digests,
    eventually,
    is_empty,
    kubectl,
    objects,
)  # fmt: skip

pytestmark = ON_A_CLUSTER


def test_runs_from_here_and_detached_equal_the_local_one_to_the_bit(deployment: Deployment, tmp_path: Path) -> None:
    deployment.local(tmp_path / "store")
    expected = digests(str(tmp_path / "store"), "local")
    assert {"train-v107/checkpoint.pth.tar", "postprocess/v107_iso.h5", "evaluate/scores.json"} <= set(expected)

    ran = isc_jobs(*deployment.arguments("whole", settings=tuple(TWO_PARTS)))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "report: s3://" in ran.stdout
    assert digests(deployment.store, "whole") == expected
    eventually(lambda: is_empty("whole"), objects("whole"))
    for rank in (0, 1):
        log = isc_jobs("logs", "whole", "train-v83", "--rank", rank, "--store", deployment.store)
        assert f"rank {rank} of 2 on cpu" in log.stdout
        part = isc_jobs("logs", "whole", "extract", "--rank", rank, "--store", deployment.store)
        assert "extract  " in part.stdout

    elsewhere = f"s3://{deployment.bucket}/detached"
    detached = isc_jobs(*deployment.arguments("detached", "--detach", "--store", elsewhere))
    assert detached.returncode == 0, detached.stdout + detached.stderr
    assert "isc-detached-controller runs in isc-jobs" in detached.stdout

    def state() -> str:
        return str(json.loads(isc_jobs("status", "detached", "--store", elsewhere, "--json").stdout)["state"])

    eventually(lambda: state() != "running", "the detached run does not end", 600)
    assert state() == "succeeded"
    assert digests(elsewhere, "detached") == expected
    eventually(lambda: is_empty("detached"), objects("detached"))
    assert "train-v107  finished" in isc_jobs("logs", "detached", "controller", "--store", elsewhere).stdout


def test_the_commit_names_the_image_by_its_digest(deployment: Deployment) -> None:
    ran = isc_jobs(*deployment.arguments("provenance", "--until", "download"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    status = json.loads(isc_jobs("status", "provenance", "--store", deployment.store, "--json").stdout)
    key = next(stage["key"] for stage in status["stages"] if stage["stage"] == "download")
    from isc_jobs.store import open_store

    commit = json.loads(open_store(deployment.store).get(f"artifacts/download/{key}/commit.json")[0])
    assert "/isc-jobs-data@sha256:" in commit["provenance"]["image"]


def test_a_training_in_pods_of_several_processes_has_a_log_for_each(deployment: Deployment, tmp_path: Path) -> None:
    four = ("compute.processes=4", "trainings.v83.sample_size=64")
    controller = deployment.start("four", "--until", "train-v83", settings=four)

    def live() -> str:
        return isc_jobs("logs", "four", "train-v83", "--rank", 3, "--store", deployment.store).stdout

    eventually(lambda: "rank 3 of 4 on cpu" in live(), "no log of rank 3 while it runs")
    output, _ = controller.communicate(timeout=600)
    assert controller.returncode == 0, output
    for rank in range(4):
        log = isc_jobs("logs", "four", "train-v83", "--rank", rank, "--store", deployment.store).stdout
        assert f"rank {rank} of 4 on cpu" in log
        assert f"rank {(rank + 1) % 4} of 4" not in log


def test_a_stages_pod_holds_no_token_and_may_write_to_its_work_folder_alone(deployment: Deployment) -> None:
    controller = deployment.start("token", "--until", "train-v83", settings=("trainings.v83.sample_size=3200",))
    name = "isc-token-train-v83-a1-master-0"
    eventually(lambda: f"pod/{name}" in objects("token"), "no pod")
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--namespace", NAMESPACE, "--timeout=120s")
    probe = (
        "import os, pathlib; print(os.getuid(), pathlib.Path('/var/run/secrets/kubernetes.io').exists(), "
        "os.access('/', os.W_OK), os.access('/opt/isc-jobs', os.W_OK), os.access('/work', os.W_OK))"
    )
    found = kubectl("exec", name, "--namespace", NAMESPACE, "--container", "pytorch", "--", "python", "-c", probe)
    assert found.split() == ["65532", "False", "False", "False", "True"]
    assert isc_jobs("cancel", "token", "--store", deployment.store).returncode == 0
    output, _ = controller.communicate(timeout=180)
    assert controller.returncode == 130, output
    eventually(lambda: is_empty("token"), objects("token"))
