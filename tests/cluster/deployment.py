"""A deployed namespace on a real cluster: KUBECONFIG, TEST_REGISTRY, AWS_ENDPOINT_URL_S3 and images.yaml say where."""

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from beside import beside
from commands import PHOTOS, SMALL, command, isc_jobs

ROOT = Path(__file__).parents[2]
NEEDED = ("KUBECONFIG", "TEST_REGISTRY", "AWS_ENDPOINT_URL_S3")
MISSING = [name for name in NEEDED if name not in os.environ]
NAMESPACE = "isc-jobs"
ON_A_CLUSTER = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(MISSING), reason=f"CLUSTER TESTS SKIPPED: {', '.join(MISSING)} not set"),
]
TWO_PODS = ["compute.processes=2", "cluster.stages.train.pods=2", "cluster.stages.train.memory=3Gi"]
TWO_PARTS = ["cluster.stages.download.pods=2", "cluster.stages.extract.pods=2"]


def kubectl(*arguments: object, given: str | None = None) -> str:
    done = subprocess.run(["kubectl", *map(str, arguments)], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(run: str) -> str:
    """Names of everything of a run in the namespace."""
    return "".join(
        kubectl("get", "configmaps,jobs,pytorchjobs,pods", "--namespace", NAMESPACE, "--output", "name",
                "--selector", f"isc-jobs.io/{label}={run}", "--ignore-not-found")
        for label in ("run", "controller")
    )  # fmt: skip


def pods(run: str) -> list[dict[str, Any]]:
    """The pods of a run's attempts."""
    found = kubectl("get", "pods", "--namespace", NAMESPACE, "--selector", f"isc-jobs.io/run={run}", "--output", "json")
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return items


def eventually(look: Callable[[], object], what: str, seconds: float = 180) -> None:
    """Return once ``look`` finds something true."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def wait_for_pod(run: str, name: str) -> None:
    """Until a pod of this name runs."""
    eventually(
        lambda: any(p["metadata"]["name"] == name and p["status"]["phase"] == "Running" for p in pods(run)),
        f"no running pod {name}",
    )


def is_empty(run: str) -> bool:
    """Whether nothing of a run is left; what its owner's deletion takes with it may need a moment."""
    return not objects(run).strip()


@contextmanager
def applied(text: str) -> Iterator[None]:
    """Something that an administrator has put into the cluster."""
    kubectl("apply", "--filename", "-", given=text)
    try:
        yield
    finally:
        kubectl("delete", "--filename", "-", given=text)


@contextmanager
def at_most_one_attempt(run: str) -> Iterator[None]:
    """Sees to it that no stage of a run has pods of two attempts running at one time."""
    found: set[str] = set()

    def look() -> None:
        running = {
            (p["metadata"]["labels"]["isc-jobs.io/stage"], p["metadata"]["labels"]["isc-jobs.io/attempt"])
            for p in pods(run) if p["status"]["phase"] == "Running"
        }  # fmt: skip
        stages = [stage for stage, _ in running]
        found.update(stage for stage in stages if stages.count(stage) > 1)

    with beside(look, 0.3):
        yield
    assert not found


@dataclass(frozen=True)
class Deployment:
    """Where runs of the tests go."""

    bucket: str
    store: str
    source: str

    def arguments(self, run: str, *more: str, settings: tuple[str, ...] = (), pods: bool = True) -> list[object]:
        """run-all with small settings, trainings in two pods."""
        values = [*SMALL, *(TWO_PODS if pods else ()), *settings]
        overrides = [part for value in values for part in ("--set", value)]
        return ["run-all", "--profile", "demo", "--launcher", "kubernetes", "--run", run, *overrides, *more]

    def start(self, run: str, *more: str, settings: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        """A controller of this machine."""
        arguments = command(*self.arguments(run, *more, settings=settings))
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def local(self, store: Path, *more: str, settings: tuple[str, ...] = ()) -> None:
        """The same pipeline in processes of this machine, on the same pictures, with two processes a training."""
        values = [*SMALL, "compute.processes=2", *settings]
        overrides = [part for value in values for part in ("--set", value)]
        ran = isc_jobs("run-all", "--profile", "demo", "--launcher", "local", "--run", "local",
                       "--source", self.source, "--store", store, *overrides, *more)  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr


def digests(store: str, run: str) -> dict[str, str]:
    """SHA-256 of every file that a run has made, but for the report and the history, which hold times."""
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.spec.stage import InputRef
    from isc_jobs.store import open_store
    from isc_jobs.store.artifacts import read_commit

    opened = open_store(store)
    found = {}
    for stage, key in read_manifest(opened, run)[0].stages.items():
        commit = read_commit(opened, InputRef(stage=stage, key=key))
        for entry in commit.files if commit else ():
            found[f"{stage}/{entry.name}"] = entry.sha256
    return {
        name: digest
        for name, digest in found.items()
        if not name.endswith(("report.html", "history.csv")) and "tfevents" not in name
    }


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Photos in a bucket, the namespace deployed with its secret and settings."""
    bucket = f"isc-jobs-{uuid.uuid4().hex[:8]}"
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket)
    folder = tmp_path_factory.mktemp("deployment")
    assert isc_jobs("dataset", "make", PHOTOS, "--out", folder / "set").returncode == 0
    for path in sorted((folder / "set").rglob("*")):
        if path.is_file():
            client.upload_file(str(path), bucket, f"set/{path.relative_to(folder / 'set')}")
    settings = folder / "settings.yaml"
    settings.write_text(
        yaml.safe_dump({"cluster": {"environment": {"AWS_ENDPOINT_URL_S3": os.environ["AWS_ENDPOINT_URL_S3"]}}})
    )
    found = Deployment(bucket, f"s3://{bucket}/runs", f"s3://{bucket}/set")
    eventually(lambda: "Terminating" not in kubectl("get", "namespaces"), "a namespace is still being deleted")
    namespace = kubectl("create", "namespace", NAMESPACE, "--dry-run=client", "--output", "yaml")
    secret = kubectl(
        "create", "secret", "generic", "isc-jobs-s3", "--namespace", NAMESPACE, "--dry-run=client", "--output", "yaml",
        *(f"--from-literal={name}={os.environ[name]}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
    )  # fmt: skip
    for text in (namespace, secret):
        kubectl("apply", "--server-side", "--filename", "-", given=text)
    make = shutil.which("make")
    assert make is not None
    addresses = [f"STORE={found.store}", f"SOURCE={found.source}", f"SETTINGS={settings}", "CHECK=--profile demo"]
    deployed = subprocess.run(
        [make, "deploy", "OVERLAY=dev", *addresses], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert deployed.stdout.count("\nok ") == 4, deployed.stdout
    yield found
    subprocess.run([make, "undeploy", "OVERLAY=dev"], cwd=ROOT, check=True)
