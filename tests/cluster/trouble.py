"""A training whose pods meet trouble on a real cluster, and the means to make it."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from deployment import NAMESPACE, Deployment, digests, eventually, is_empty, kubectl, objects, wait_for_pod
from tally import record

from isc_jobs.controller.manifest import read_manifest
from isc_jobs.store import open_store


class Run:
    """A training whose pods meet trouble, followed by what its controller says."""

    def __init__(self, deployment: Deployment, name: str, *settings: str) -> None:
        self.name, self.deployment, self.settings = name, deployment, settings
        self.store = open_store(deployment.store)
        self.lines: list[str] = []
        self.process = deployment.start(name, "--until", "train-v83", settings=settings)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def says(self, words: str, seconds: float = 180) -> None:
        """Until its controller has said so."""
        deadline = time.monotonic() + seconds
        while not any(words in line for line in self.lines):
            assert time.monotonic() < deadline, f"{words!r} is not said: {self.lines}"
            assert self._reader.is_alive(), f"it ended without saying {words!r}: {self.lines}"
            time.sleep(0.3)

    def checkpoints(self) -> set[str]:
        """That are whole."""
        return {info.key for info in self.store.list("checkpoints/") if info.key.endswith("/marker.json")}

    def trains(self, attempt: int) -> str:
        """Until this attempt has come further than the one before; the name of its worker."""
        worker = f"isc-{self.name}-train-v83-a{attempt}-worker-0"
        wait_for_pod(self.name, worker)
        before = self.checkpoints()
        eventually(lambda: self.checkpoints() - before, f"no checkpoint: {self.lines}")
        return worker

    def ends(self, fault: str, began: float, code: int = 0) -> None:
        """Until its controller does, with nothing left in the cluster; the kinds of its attempts are counted."""
        self.process.wait(600)
        self._reader.join()
        assert self.process.returncode == code, self.lines
        eventually(lambda: is_empty(self.name), objects(self.name))
        record(fault, lost=0, repeated=0, seconds=time.monotonic() - began)

    def attempts(self) -> list[tuple[str | None, str, str]]:
        """Of the training: kind, pod and evidence."""
        records = read_manifest(self.store, self.name)[0].attempts
        return [(one.kind, one.pod, one.evidence) for one in records if one.stage == "train-v83"]

    def equals_the_local_one(self, folder: Path) -> None:
        """Its weights, to the bit."""
        self.deployment.local(folder / "store", "--until", "train-v83", settings=self.settings)
        name = "train-v83/checkpoint.pth.tar"
        assert digests(self.deployment.store, self.name)[name] == digests(str(folder / "store"), "local")[name]


def evict(pod: str) -> None:
    """As an autoscaler or a drain does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    kubectl("create", "--raw", path, "--filename", "-", given=json.dumps(body))


def cores(quantity: str) -> float:
    """Of a Kubernetes quantity."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def node_of(pod: str) -> str:
    """Where it runs."""
    return kubectl("get", "pod", pod, "--namespace", NAMESPACE, "--output", "jsonpath={.spec.nodeName}")


def urgent_pod(run: str, node: str) -> str:
    """A pod that outranks the run's and leaves none of them room on their node."""
    status = json.loads(kubectl("get", "node", node, "--output", "json"))["status"]
    found = json.loads(kubectl("get", "pods", "--all-namespaces", "--output", "json", "--field-selector",
                               f"spec.nodeName={node},status.phase=Running"))["items"]  # fmt: skip
    others = [pod for pod in found if pod["metadata"].get("labels", {}).get("isc-jobs.io/run") != run]
    asked = [
        cores(container.get("resources", {}).get("requests", {}).get("cpu", "0"))
        for pod in others for container in pod["spec"]["containers"]
    ]  # fmt: skip
    image = next(pod for pod in found if pod not in others)["spec"]["containers"][0]["image"]
    free = int(1000 * (cores(status["allocatable"]["cpu"]) - sum(asked))) - 1
    return f"""
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {{name: isc-test-urgent}}
value: 1000
---
apiVersion: v1
kind: Pod
metadata: {{name: urgent, namespace: {NAMESPACE}}}
spec:
  priorityClassName: isc-test-urgent
  nodeName: ""
  terminationGracePeriodSeconds: 0
  securityContext: {{runAsNonRoot: true, runAsUser: 65532}}
  containers:
    - name: urgent
      image: {image}
      command: [sleep, "600"]
      resources: {{requests: {{cpu: {free}m}}}}
"""


def operator() -> tuple[str, str]:
    """Namespace and name of the Deployment that runs PyTorchJobs."""
    found = json.loads(kubectl("get", "deployments", "--all-namespaces", "--output", "json"))["items"]
    names = [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found]
    return next(name for name in names if "training-operator" in name[1])


def registry(method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[bytes, str]:
    """Of the registry's API: content and its media type."""
    host, _, name = os.environ["TEST_REGISTRY"].partition("/")
    kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    headers = {"Accept": kinds, **({"Content-Type": kind} if body else {})}
    url = f"http://{host}/v2/{name}{'/' if name else ''}{path}"
    with urlopen(Request(url, data=body or None, headers=headers, method=method), timeout=60) as answer:
        return answer.read(), answer.headers.get("Content-Type", "")


def runtime_of(node: str) -> list[str]:
    """The command that speaks to a node's containerd, if it runs on this machine."""
    config = json.loads(kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/configz"))["kubeletconfig"]
    address = urlsplit(config["containerRuntimeEndpoint"]).path
    command = shutil.which("ctr")
    if command is None or not Path(address).exists():
        pytest.skip("the node's containerd is not on this machine: an image cannot be taken from it")
    return [command, "--address", address, "--namespace", "k8s.io"]


def kubelet() -> int:
    """Its process on this machine."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        if path.read_text().strip() == "kubelet":
            return int(path.parent.name)
    pytest.skip("the node's kubelet is not on this machine: it cannot be stopped")


def trainings() -> list[int]:
    """Processes of trainings in pods of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            if b"isc_jobs.stages.train" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@contextmanager
def frozen(processes: Iterable[int]) -> Iterator[None]:
    """Stopped, and going on afterwards."""
    stopped = []
    try:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
            stopped.append(process)
        yield
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)


def ready(node: str) -> bool:
    """As the cluster believes."""
    return kubectl("get", "node", node, "--output",
                   "jsonpath={.status.conditions[?(@.type=='Ready')].status}") == "True"  # fmt: skip
