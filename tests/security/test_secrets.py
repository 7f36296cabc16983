"""Credentials in the environment and in addresses appear nowhere: not in sentences, manifests, logs or images."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import isc_jobs
from stores import s3  # noqa: F401

from isc_jobs.spec.errors import TemporaryError, UsageError
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import StageSpec
from isc_jobs.store import open_store
from isc_jobs.store.source import open_source

SECRET = "uNmIsTaKaBlE"
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": f"{SECRET}1", "AWS_SESSION_TOKEN": f"{SECRET}2",
    "HTTP_PROXY": f"http://user:{SECRET}3@127.0.0.1:9", "HTTPS_PROXY": f"http://user:{SECRET}4@127.0.0.1:9",
    "AWS_MAX_ATTEMPTS": "1", "AWS_REGION": "us-east-1", "NO_PROXY": "",
}  # fmt: skip
ADDRESSES = [
    f"s3://key:{SECRET}@bucket", f"s3://{SECRET}@bucket/prefix", f"https://key:{SECRET}@s3.example.com/bucket",
    f"https://bucket.s3.amazonaws.com/runs?X-Amz-Credential=AKIA&X-Amz-Signature={SECRET}",
    f"s3://bucket/runs?x-amz-signature={SECRET}", f"https://account.blob.example.net/c?sig={SECRET}",
    f"ftp://{SECRET}.example.com/x",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_with_credentials_is_refused_and_not_repeated(address: str) -> None:
    for opens in (open_store, open_source):
        with pytest.raises(UsageError) as caught:
            opens(address)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("address", ["s3://bucket/a@b:c", "s3://bucket/what?", "folder@home"])
def test_an_at_sign_elsewhere_is_part_of_a_name(address: str) -> None:
    assert open_store(address).uri.endswith(address.removeprefix("s3://bucket/"))


@pytest.mark.parametrize("command", [["render", "--source", "s3://photos/x"], ["status", "mine"]])
def test_commands_refuse_a_store_with_credentials(command: list[str]) -> None:
    done = isc_jobs(*command, "--store", ADDRESSES[0])
    assert (done.returncode, done.stdout) == (64, "")
    assert "holds credentials within an address" in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"AWS_SECRET_ACCESS_KEY": SECRET}, "variable AWS_SECRET_ACCESS_KEY is no place for a secret"),
        ({"AWS_SESSION_TOKEN": 12345678}, "variable AWS_SESSION_TOKEN is no place for a secret"),
        ({"DB_PASSWORD": [SECRET]}, "variable DB_PASSWORD is no place for a secret"),
        ({"AWS_ENDPOINT_URL_S3": f"http://user:{SECRET}@host:9000"}, "variable AWS_ENDPOINT_URL_S3 holds credentials"),
        ({"HTTPS_PROXY": f"http://user:{SECRET}@proxy"}, "variable HTTPS_PROXY holds credentials"),
    ],
)
def test_settings_refuse_a_secret_in_the_pods_environment(variables: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        load_settings("demo", deployed=[{"cluster": {"environment": variables}}])
    assert SECRET not in str(caught.value)
    assert "12345678" not in str(caught.value)


def test_variables_that_name_files_are_no_secrets() -> None:
    allowed = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token", "AWS_SHARED_CREDENTIALS_FILE": "/x", "AWS_REGION": "eu"}
    assert load_settings("demo", deployed=[{"cluster": {"environment": allowed}}]).cluster.environment == allowed


@pytest.mark.parametrize("endpoint", [f"http://user:{SECRET}@127.0.0.1:9", f"user:{SECRET}/x", f"http://{SECRET} x"])
def test_an_endpoint_with_a_password_or_none_is_refused_and_not_repeated(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL") as caught:
        open_store("s3://bucket/runs")
    assert SECRET not in str(caught.value)


def test_a_stage_that_cannot_reach_its_store_says_no_secret(tmp_path: Path) -> None:
    """Its output, its last words and those for the kubelet; behind a proxy that is not there."""
    spec = StageSpec(program="download", stage="download", key="0" * 64, run="r", attempt=1, store="s3://bucket/runs",
                     settings={}, inputs={}, parameters={}, execution={})  # fmt: skip
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    (tmp_path / "sitecustomize.py").write_text("import logging; logging.basicConfig(level=logging.INFO)")
    more = {"AWS_ENDPOINT_URL_S3": "http://s3.invalid", "ISC_JOBS_TERMINATION_LOG": str(tmp_path / "last"),
            "PYTHONPATH": f"{tmp_path}:{ROOT}"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "isc_jobs.stages.download", "--spec", "spec.json", "--work", "work"], cwd=tmp_path,
        env=os.environ | ENVIRONMENT | more, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    last = [(tmp_path / "last").read_text(), *(path.read_text() for path in (tmp_path / "work").glob("termination-*"))]
    assert len(last) == 2
    assert SECRET not in done.stdout + done.stderr + "".join(last)
    assert json.loads(last[0])["reason"].startswith("s3://bucket/runs: cannot reach the S3 server")


def test_what_is_kept_of_a_failed_run_and_rendered_of_it_holds_no_secret(tmp_path: Path) -> None:
    """A stage that fails within: its traceback is in the log that is kept, with the run's state."""
    (tmp_path / "data/train_images").mkdir(parents=True)
    (tmp_path / "data/train_images/a.jpg").write_bytes(b"no picture")
    environment = ENVIRONMENT | {"ISC_JOBS_WORK": str(tmp_path / "work")}
    done = isc_jobs("run-all", "--profile", "demo", "--source", tmp_path / "data", "--store", tmp_path / "store",
                    "--run", "mine", env=environment)  # fmt: skip
    assert done.returncode == 65, done.stderr
    shown = isc_jobs("status", "mine", "--json", "--store", tmp_path / "store", env=environment)
    images = [part for name in ("data", "train", "controller") for part in ("--set", f"cluster.images.{name}=i")]
    rendered = isc_jobs("render", "--profile", "demo", "--source", tmp_path / "data", "--store", "s3://b/x", *images,
                        env=environment)  # fmt: skip
    assert "secretKeyRef" in rendered.stdout
    assert SECRET not in "".join(part.stdout + part.stderr for part in (done, shown, rendered))
    kept = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert {"manifest.json", "log-0.txt.gz", "termination.json"} <= {path.name for path in kept}
    for path in kept:
        data = path.read_bytes()
        assert SECRET.encode() not in (gzip.decompress(data) if path.suffix == ".gz" else data), path


def test_an_upload_that_is_refused_is_explained(s3: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(UsageError, match=r"the S3 server refuses \(NoSuchBucket\)"):
        open_store("s3://absent/runs").upload("key", tmp_path / "file")


def test_an_upload_that_fails_may_be_tried_later(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from fault_proxy import SLOW_DOWN, FaultProxy

    proxy = FaultProxy(os.environ["AWS_ENDPOINT_URL_S3"])
    proxy.choose = lambda method, _path: SLOW_DOWN if method == "PUT" else None
    proxy.open()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
    (tmp_path / "file").write_bytes(b"1")
    try:
        with pytest.raises(TemporaryError, match=r"the S3 server fails \(SlowDown\)"):
            open_store(s3).upload("key", tmp_path / "file")
    finally:
        proxy.close()


def test_images_are_built_of_named_files_alone() -> None:
    """No key of the checkout's owner comes into the build's context."""
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules == [
        "*",
        "!isc_jobs",
        "!images/requirements.py",
        "!constraints.txt",
        "!pyproject.toml",
        "**/__pycache__",
    ]
