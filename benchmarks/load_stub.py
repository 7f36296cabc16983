"""The runs of load_runs.py, and a stub that says of their pods that they run and that they have ended."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client

from isc_jobs.controller.request import Request, pipeline_of, wanted_part
from isc_jobs.spec.pipeline import Pipeline, find_stage
from isc_jobs.spec.profile import load_settings
from isc_jobs.store import open_store
from isc_jobs.store.artifacts import publish

LABEL = "isc-jobs.io"
LAST = "train-v86"


@dataclass(frozen=True)
class Load:
    """So many runs, named load-0 and so on, whose pods run for ``seconds`` a stage."""

    runs: int
    seconds: float
    namespace: str
    store: str
    folder: Path

    @property
    def forked(self) -> range:
        """Numbers of the runs whose controllers are forked: all but the last, if there are several."""
        return range(max(1, self.runs - 1))

    def request(self, number: int) -> Request:
        """Of a run; no two have a stage in common."""
        images = [f"cluster.images.{name}=stub@sha256:{'0' * 64}" for name in ("controller", "data", "train")]
        settings = load_settings("demo", [
            *images, f"cluster.namespace={self.namespace}", "cluster.node_selector={isc-jobs.io/load: nowhere}",
            "cluster.grace_seconds=10", "cluster.pending_seconds=7200",
        ])  # fmt: skip
        return Request(
            run=f"load-{number}", settings=settings.model_dump(mode="json"), source="s3://nowhere/set", anonymous=False,
            source_digest=f"{number:064x}", weights_sha256=None, first=None, last=LAST, launcher="kubernetes",
        )  # fmt: skip

    def pipeline(self, number: int) -> Pipeline:
        """The stages that a run goes through."""
        request = self.request(number)
        return wanted_part(pipeline_of(request), request)

    def write(self, name: str, content: object) -> None:
        """Leave a result."""
        (self.folder / f"{name}.partial").write_text(json.dumps(content))
        (self.folder / f"{name}.partial").rename(self.folder / f"{name}.json")

    def read(self, name: str) -> Any:
        """What was left, None if nothing yet."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None


class Stub:
    """Says of pods that they run and that they have ended; what their stages commit is a line."""

    def __init__(self, load: Load) -> None:
        """Connect."""
        self._load, self._store = load, open_store(load.store)
        self._pods: Any = client.CoreV1Api()
        self._out = load.folder / "output"
        self._out.mkdir()
        (self._out / "output.txt").write_text("as a stage would make it\n")
        self._running: dict[str, dict[str, str]] = {}  # by stage: run and pod
        self._since: dict[str, float] = {}  # by stage, when all ran
        self._ended: set[str] = set()  # pods
        self._pipelines: dict[str, Pipeline] = {}  # by run; to make one takes a while

    def run(self) -> None:
        """Until all runs have ended."""
        with ThreadPoolExecutor(8) as threads:
            parent = os.getppid()
            while self._load.read("over") is None and os.getppid() == parent:
                pods = self._pods.list_namespaced_pod(self._load.namespace).items
                list(threads.map(self._look, pods))
                self._note()
                time.sleep(1)

    def _note(self) -> None:
        """All runs are in a stage, but for the one that was cancelled."""
        for stage, running in self._running.items():
            if stage not in self._since and len(running) >= self._load.runs - (stage == LAST and self._load.runs > 1):
                self._since[stage] = time.time()
                self._load.write(f"all-{stage}", self._since[stage])

    def _look(self, pod: Any) -> None:
        name, stage, run = (
            pod.metadata.name, pod.metadata.labels[f"{LABEL}/stage"], pod.metadata.labels[f"{LABEL}/run"],
        )  # fmt: skip
        if pod.metadata.deletion_timestamp or name in self._ended:
            return
        if pod.status.phase == "Pending":
            progress = {"step": 1, "total": 100, "rate": 0.1, "eta_s": 1000.0, "unix_time": time.time()}
            self._store.put(f"runs/{run}/{stage}/attempt-1/progress.json", json.dumps(progress).encode())
            self._say(pod, "Running", {"running": {}})
            self._running.setdefault(stage, {})[run] = name
        elif time.time() - self._since.get(stage, time.time()) > self._load.seconds:
            self._ended.add(name)
            if run not in self._pipelines:
                self._pipelines[run] = self._load.pipeline(int(run.split("-")[1]))
            publish(
                self._store,
                find_stage(self._pipelines[run], stage).ref,
                self._out,
                run=run,
                attempt=1,
                summary={},
                provenance={},
                seconds=1.0,
            )
            self._say(pod, "Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}})

    def _say(self, pod: Any, phase: str, state: dict[str, Any]) -> None:
        container = {"name": pod.spec.containers[0].name, "image": "", "imageID": "", "ready": phase == "Running",
                     "restartCount": 0, "state": state}  # fmt: skip
        status = {"phase": phase, "containerStatuses": [container]}
        try:
            self._pods.patch_namespaced_pod_status(pod.metadata.name, self._load.namespace, {"status": status})
        except client.ApiException as error:
            if error.status != 404:  # the commit may end the attempt, and its pods with it, before
                raise
