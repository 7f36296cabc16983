"""A deployed namespace on a real cluster: KUBECONFIG, TEST_REGISTRY, AWS_ENDPOINT_URL_S3 and images.yaml say where."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import yaml
from commands import PHOTOS, SMALL, isc_jobs

ROOT = Path(__file__).parents[2]
NEEDED = ("KUBECONFIG", "TEST_REGISTRY", "AWS_ENDPOINT_URL_S3")


MISSING = [name for name in NEEDED if name not in os.environ]


def kubectl(*arguments: object) -> str:
    done = subprocess.run(["kubectl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Deployment:
    """Where runs of the tests go."""

    bucket: str
    store: str
    source: str

    def arguments(self, run: str, *more: object) -> list[object]:
        """run-all with small settings, trainings in two pods."""
        overrides = [
            part
            for value in [*SMALL, "compute.processes=2", "cluster.stages.train.pods=2"]
            for part in ("--set", value)
        ]
        return ["run-all", "--profile", "demo", "--launcher", "kubernetes", "--run", run, *overrides, *more]


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
    namespace = kubectl("create", "namespace", "isc-jobs", "--dry-run=client", "--output", "yaml")
    secret = kubectl(
        "create", "secret", "generic", "isc-jobs-s3", "--namespace", "isc-jobs", "--dry-run=client", "--output", "yaml",
        *(f"--from-literal={name}={os.environ[name]}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
    )  # fmt: skip
    for text in (namespace, secret):
        subprocess.run(["kubectl", "apply", "--filename", "-"], input=text, text=True, check=True)
    make = shutil.which("make")
    assert make is not None
    addresses = [f"STORE={found.store}", f"SOURCE={found.source}", f"SETTINGS={settings}", "CHECK=--profile demo"]
    subprocess.run([make, "deploy", "OVERLAY=dev", *addresses], cwd=ROOT, check=True)
    yield found
    subprocess.run([make, "undeploy", "OVERLAY=dev"], cwd=ROOT, check=True)
