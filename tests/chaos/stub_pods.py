"""Pods that no node runs: they ask for one that is not there, and the test does their stages' work.

It writes the commit and says in their status that they have ended. What is tried is the controller, its objects, and
the API server that keeps them.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beside import beside
from deployment import NAMESPACE, pods

from isc_jobs.controller.manifest import read_manifest
from isc_jobs.spec.stage import InputRef
from isc_jobs.store import Store
from isc_jobs.store.artifacts import publish

NOWHERE = ("cluster.node_selector={isc-jobs.io/chaos: nowhere}",)


def end(pod: dict[str, Any]) -> None:
    """Say that a pod's container has succeeded."""
    from kubernetes import client, config

    load: Any = config.load_kube_config
    load()
    container = {"name": pod["spec"]["containers"][0]["name"], "image": "", "imageID": "", "ready": False,
                 "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}  # fmt: skip
    status = {"phase": "Succeeded", "containerStatuses": [container]}
    try:
        client.CoreV1Api().patch_namespaced_pod_status(pod["metadata"]["name"], NAMESPACE, {"status": status})
    except client.ApiException as error:
        if error.status != 404:  # a commit may end an attempt, and its pods with it, before
            raise


@contextmanager
def pods_that_work(run: str, store: Store, folder: Path) -> Iterator[None]:
    """Commits the stage of every pod that waits and ends the pod; no stage has pods of two attempts at once."""
    twice: set[tuple[str | int, ...]] = set()

    def look() -> None:
        alive: dict[str, set[int]] = defaultdict(set)
        for pod in pods(run):
            labels, metadata = pod["metadata"]["labels"], pod["metadata"]
            if pod["status"]["phase"] != "Pending" or "deletionTimestamp" in metadata:
                continue
            stage, number = labels["isc-jobs.io/stage"], int(labels["isc-jobs.io/attempt"])
            alive[stage].add(number)
            out = folder / stage
            out.mkdir(exist_ok=True)
            (out / "output.txt").write_text(f"of {stage}\n")
            key = read_manifest(store, run)[0].stages[stage]
            publish(store, InputRef(stage=stage, key=key), out, run=run, attempt=number, summary={}, provenance={},
                    seconds=1.0)  # fmt: skip
            end(pod)
        twice.update((stage, *sorted(numbers)) for stage, numbers in alive.items() if len(numbers) > 1)

    with beside(look, 0.2):
        yield
    assert not twice
