"""The policies of k8s/s3-policies, at a server that keeps them: enough for a run, and for nothing else."""

import gzip
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from commands import PHOTOS, isc_jobs, run_all
from moto import settings
from moto.server import ThreadedMotoServer

from isc_jobs.controller.request import cancel_key
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.stage import InputRef, curve_key
from isc_jobs.store import NotFound, open_store
from isc_jobs.store.artifacts import open_artifact, publish, read_commit, uncommit, verify_commit
from isc_jobs.store.checkpoints import load_latest, prune, save_checkpoint
from isc_jobs.store.probe import probe
from isc_jobs.store.source import open_source

POLICIES = Path(__file__).parents[2] / "k8s/s3-policies"
PLACES = {"controller": "store/runs-of-mine", "stage": "store/runs-of-mine", "source": "photos/disc21"}
STORE, SOURCE = "s3://store/runs-of-mine", "s3://photos/disc21"
PROXY = "http://puser:pr0xy-passw0rd@127.0.0.1:9"
# Stages have keys of their own, as in a cluster with a service account of each role; all say all they can.
SITE = """
import logging, os, sys
if any("isc_jobs.stages." in part for part in sys.orig_argv):
    os.environ.update(AWS_ACCESS_KEY_ID=os.environ["STAGE_ID"], AWS_SECRET_ACCESS_KEY=os.environ["STAGE_KEY"])
    logging.basicConfig(level=logging.DEBUG)
"""


@dataclass(frozen=True)
class Server:
    address: str
    keys: dict[str, dict[str, str]]  # variables by role

    def secrets(self) -> list[str]:
        return [*(key["AWS_SECRET_ACCESS_KEY"] for key in self.keys.values()), "pr0xy-passw0rd"]


def policy(name: str) -> str:
    bucket, _, prefix = PLACES[name].partition("/")
    return (POLICIES / f"{name}.json").read_text("utf-8").replace("BUCKET", bucket).replace("PREFIX", prefix)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Photos in one bucket, the store in another; two users. It begins to check rights when all is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        host, port = moto.get_host_and_port()
        address = f"http://{host}:{port}"
        root = {
            "endpoint_url": address,
            "region_name": "us-east-1",
            "aws_access_key_id": "a",
            "aws_secret_access_key": "b",
        }
        s3, iam, keys = boto3.client("s3", **root), boto3.client("iam", **root), {}
        for bucket in ("store", "photos"):
            s3.create_bucket(Bucket=bucket)
        for number, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))[:24]):
            folder = ("train_images", "reference_images", "query_images", "query_images_phase2")[number % 4]
            s3.put_object(Bucket="photos", Key=f"disc21/{folder}/P{number:05d}.jpg", Body=photo.read_bytes())
        for role in ("controller", "stage", "all"):
            iam.create_user(UserName=role)
            for name in () if role == "all" else (role, "source"):
                iam.put_user_policy(UserName=role, PolicyName=name, PolicyDocument=policy(name))
            made = iam.create_access_key(UserName=role)["AccessKey"]
            keys[role] = {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}
        everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        iam.put_user_policy(UserName="all", PolicyName="all", PolicyDocument=document)
        patch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        yield Server(address, keys)
        moto.stop()


@pytest.fixture(scope="module")
def ran(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run to the end of download has said; each program by the rights of its role."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SITE)
    environment = server.keys["controller"] | {
        "AWS_ENDPOINT_URL_S3": server.address, "AWS_REGION": "us-east-1", "HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY,
        "NO_PROXY": "127.0.0.1", "ISC_JOBS_WORK": str(site / "work"),
        "STAGE_ID": server.keys["stage"]["AWS_ACCESS_KEY_ID"],
        "STAGE_KEY": server.keys["stage"]["AWS_SECRET_ACCESS_KEY"],
        "PYTHONPATH": f"{site}:{os.environ.get('PYTHONPATH', '')}",
    }  # fmt: skip
    done = isc_jobs(*run_all(Path("x"), STORE), "--source", SOURCE, "--until", "download", env=environment)  # fmt: skip
    shown = isc_jobs("status", "test", "--store", STORE, "--json", env=environment)
    logged = isc_jobs("logs", "test", "download", "--store", STORE, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert (shown.returncode, logged.returncode) == (0, 0)
    return done.stdout + done.stderr + shown.stdout + shown.stderr + logged.stdout + logged.stderr


@pytest.fixture
def as_role(
    fresh_credentials: None, server: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name, value in (server.keys[request.param] | {"AWS_ENDPOINT_URL_S3": server.address}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.xdist_group("s3-rights")
def test_the_policies_are_enough_for_a_run(ran: str) -> None:
    assert re.search(r"^download  finished in", ran, re.MULTILINE)


@pytest.mark.xdist_group("s3-rights")
@pytest.mark.parametrize("as_role", ["stage"], indirect=True)
def test_the_policy_of_stages_is_enough_for_inputs_checkpoints_and_outputs(
    ran: str, as_role: None, tmp_path: Path
) -> None:
    store, ref = open_store(STORE), InputRef(stage="train-v83", key="0" * 64)
    [key] = [info.key.split("/")[2] for info in store.list("artifacts/download/") if info.key.endswith("commit.json")]
    assert open_artifact(store, InputRef(stage="download", key=key), tmp_path / "cache").path("manifest.json").is_file()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/state.pt").write_bytes(b"1")
    assert load_latest(store, ref.key, tmp_path / "found") is None
    for step in (1, 2):
        save_checkpoint(store, ref.key, step, tmp_path / "out")
    prune(store, ref.key, 1)
    assert load_latest(store, ref.key, tmp_path / "found") == 2
    assert read_commit(store, ref) is None
    made = publish(store, ref, tmp_path / "out", run="test", attempt=1, summary={}, provenance={}, seconds=1.0)
    assert verify_commit(store, made)
    uncommit(store, ref)
    store.put("runs/test/train-v83/attempt-1/progress-3.json", b"{}")
    store.put(curve_key("runs/test/train-v83/attempt-1"), b"")
    probe(STORE)


@pytest.mark.xdist_group("s3-rights")
@pytest.mark.parametrize("as_role", ["controller"], indirect=True)
def test_the_policy_of_controllers_is_enough_for_weights_and_tidying(ran: str, as_role: None, tmp_path: Path) -> None:
    store, ref = open_store(STORE), InputRef(stage="weights", key="0" * 64)
    (tmp_path / "weights.pth.tar").write_bytes(b"1")
    assert read_commit(store, ref) is None
    made = publish(store, ref, tmp_path, run="test", attempt=1, summary={}, provenance={}, seconds=1.0)
    assert verify_commit(store, made)
    for info in list(store.list(f"checkpoints/{'0' * 64}/")):
        store.delete(info.key)
    for key in (f"artifacts/train-v83/{ref.key}/history.csv", f"artifacts/evaluate/{ref.key}/report.html"):
        with pytest.raises(NotFound):
            store.get(key)
    store.put(cancel_key("test"), b"{}")
    store.delete(cancel_key("test"))
    probe(STORE)


@pytest.mark.xdist_group("s3-rights")
@pytest.mark.parametrize("as_role", ["stage"], indirect=True)
def test_a_stage_may_not_touch_what_the_controller_writes_nor_finished_files(
    ran: str, as_role: None, tmp_path: Path
) -> None:
    store = open_store(STORE)
    finished = [info.key for info in store.list("artifacts/download/") if not info.key.endswith("commit.json")]
    attempts = ("runs/test/manifest.json", "runs/test/lease.json", "runs/test/download/attempt-1/spec.json",
                "runs/test/cancel.json", "listings/0.tsv.gz", "other/x")  # fmt: skip
    for key in attempts:
        with pytest.raises(UsageError, match="AccessDenied"):
            store.put(key, b"{}")
    (tmp_path / "file").write_text("{}")
    with pytest.raises(UsageError, match="AccessDenied"):  # a large file comes by another way
        store.upload("runs/test/manifest.json", tmp_path / "file")
    with pytest.raises(UsageError, match="AccessDenied"):
        store.get("runs/test/manifest.json")
    with pytest.raises(UsageError, match="AccessDenied"):
        store.delete(finished[0])
    with pytest.raises(UsageError, match="AccessDenied"):
        open_store(SOURCE).put("train_images/new.jpg", b"")


@pytest.mark.xdist_group("s3-rights")
@pytest.mark.parametrize("as_role", ["controller"], indirect=True)
def test_a_controller_may_not_write_outputs_or_pictures(ran: str, as_role: None) -> None:
    store = open_store(STORE)
    for key in ("artifacts/download/0/commit.json", "checkpoints/0/step-000000001/marker.json", "other/x"):
        with pytest.raises(UsageError, match="AccessDenied"):
            store.put(key, b"{}")
    with pytest.raises(UsageError, match="AccessDenied"):
        open_store(SOURCE).put("train_images/new.jpg", b"")
    assert next(iter(open_source(SOURCE).list())).size


@pytest.mark.xdist_group("s3-rights")
def test_no_secret_is_said_or_kept_even_where_all_is_logged(ran: str, server: Server) -> None:
    root = boto3.client("s3", endpoint_url=server.address, region_name="us-east-1", **_root(server))
    assert "DEBUG:botocore" in ran
    for secret in server.secrets():
        assert secret not in ran
    kept = 0
    for page in root.get_paginator("list_objects_v2").paginate(Bucket="store"):
        for item in page["Contents"]:
            if not item["Key"].endswith((".json", ".gz", ".csv", ".txt")):
                continue
            data = root.get_object(Bucket="store", Key=item["Key"])["Body"].read()
            data = gzip.decompress(data) if item["Key"].endswith(".gz") else data
            kept += 1
            for secret in server.secrets():
                assert secret.encode() not in data, item["Key"]
    assert kept > 10


def _root(server: Server) -> dict[str, str]:
    """Who may read all: a user of the test's own."""
    key = server.keys["all"]
    return {"aws_access_key_id": key["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": key["AWS_SECRET_ACCESS_KEY"]}


def test_policies_are_json_of_two_places() -> None:
    for path in POLICIES.glob("*.json"):
        for statement in json.loads(path.read_text("utf-8"))["Statement"]:
            resources = statement["Resource"]
            for resource in [resources] if isinstance(resources, str) else resources:
                assert resource == "arn:aws:s3:::BUCKET" or resource.startswith("arn:aws:s3:::BUCKET/PREFIX/")
