"""Between the controller and the API server: answers lost, cut, late, refused, and a server that is away."""

import base64
import json
import os
import random
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml
from commands import command
from deployment import ON_A_CLUSTER, Deployment, eventually, is_empty, objects
from fault_proxy import LOST, RESET, SLOW, TRUNCATED, TWICE, Fault, fault_proxy
from points import ALL
from stub_pods import NOWHERE, pods_that_work
from tally import record

from isc_jobs.controller.manifest import read_manifest
from isc_jobs.spec.stage import InputRef
from isc_jobs.store import open_store
from isc_jobs.store.artifacts import read_commit

pytestmark = [*ON_A_CLUSTER, pytest.mark.timeout(7200 if ALL else 900)]


def refusal(code: int, reason: str, *headers: tuple[str, str]) -> Fault:
    """As the API server says it."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": reason,
    }
    named = (("Content-Type", "application/json"), *headers)
    return Fault(f"{code} {reason}", status=code, headers=named, body=json.dumps(status).encode())


ANY = (RESET, LOST, TWICE, SLOW, TRUNCATED, refusal(500, "InternalError"), refusal(503, "ServiceUnavailable"),
       refusal(429, "TooManyRequests", ("Retry-After", "1")))  # fmt: skip
READS = (*ANY, refusal(410, "Expired"))


def context_of(folder: Path) -> tuple[str, ssl.SSLContext]:
    """Address and TLS of the API server that KUBECONFIG names."""
    kubeconfig = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    cluster, user = kubeconfig["clusters"][0]["cluster"], kubeconfig["users"][0]["user"]
    files = {}
    for name, entry in (("certificate-authority", cluster), ("client-certificate", user), ("client-key", user)):
        files[name] = Path(entry[name]) if name in entry else folder / name
        if name not in entry:
            files[name].write_bytes(base64.b64decode(entry[f"{name}-data"]))
    context = ssl.create_default_context(cafile=files["certificate-authority"])
    context.load_cert_chain(files["client-certificate"], files["client-key"])
    return cluster["server"], context


def kubeconfig(address: str, path: Path) -> Path:
    """Of a server without TLS that asks for no credentials."""
    path.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy", "users": [{"name": "nobody", "user": {}}],
        "clusters": [{"name": "proxy", "cluster": {"server": address}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
    }))  # fmt: skip
    return path


@pytest.mark.parametrize("seed", range(10 if ALL else 1))
def test_a_run_through_a_bad_network_to_the_api_server_ends(deployment: Deployment, tmp_path: Path, seed: int) -> None:
    """One request in ten meets a fault, and once the server is away for twenty seconds."""
    name, chance, lock = f"faults-{seed}", random.Random(seed), threading.Lock()
    store = open_store(f"s3://{deployment.bucket}/{name}")

    def choose(method: str, _path: str) -> Fault | None:
        with lock:
            return chance.choice(READS if method == "GET" else ANY) if chance.random() < 0.1 else None

    with fault_proxy(*context_of(tmp_path)) as proxy:
        environment = os.environ | {"KUBECONFIG": str(kubeconfig(proxy.address, tmp_path / "config"))}
        arguments = command(*deployment.arguments(name, "--store", store.uri, settings=NOWHERE))
        began = time.monotonic()
        with pods_that_work(name, store, tmp_path), (tmp_path / "said.txt").open("w+") as said:
            run = subprocess.Popen(arguments, env=environment, stdout=said, stderr=said)
            eventually(lambda: list(store.list(f"runs/{name}/train-v83/")), "v83 does not start")
            proxy.choose = choose
            time.sleep(3)
            proxy.close()
            time.sleep(20)
            proxy.open()
            code = run.wait()
        took = time.monotonic() - began
        spoilt = len(proxy.spoilt)
    manifest = read_manifest(store, name)[0]
    commits = [read_commit(store, InputRef(stage=stage, key=key)) for stage, key in manifest.stages.items()]
    lost = sum(commit is None for commit in commits)
    repeated = sum(attempt.attempt > 1 for attempt in manifest.attempts)
    record("API server: one request in ten, and away for 20 s", lost=lost, repeated=repeated, seconds=took)
    assert (code, manifest.state, lost, repeated) == (0, "succeeded", 0, 0), (tmp_path / "said.txt").read_text()
    assert spoilt
    eventually(lambda: is_empty(name), objects(name))
