"""What an attempt's pods have said, by process."""

from collections.abc import Iterable

from isc_jobs.controller.kubernetes.api import Api
from isc_jobs.controller.manifests import processes_per_pod
from isc_jobs.controller.pods import logs_by_rank, rank
from isc_jobs.controller.podspec import LABEL, Object
from isc_jobs.spec.settings import Cluster
from isc_jobs.spec.stage import StageSpec


def pods_log(api: Api, pods: Iterable[Object], processes: int = 1) -> dict[int, bytes]:
    """The logs of pods with so many processes each, by rank; what has said nothing, or has gone, is left out."""
    found: dict[int, bytes] = {}
    for pod in pods:
        log = api.pod_log(pod["metadata"]["name"])
        if log is not None:
            found |= logs_by_rank(log, rank(pod) * processes)
    return found


def controller_log(api: Api, run: str) -> bytes | None:
    """What the run's controllers in the cluster have said so far, one after another; None if there are none."""
    pods = api.list("v1", "Pod", labels=f"{LABEL}/controller={run}")
    pods.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    logs = [api.pod_log(pod["metadata"]["name"]) or b"" for pod in pods]
    return b"".join(logs) if pods else None


def longer(some: dict[int, bytes], others: dict[int, bytes]) -> dict[int, bytes]:
    """By process the longer log: a pod that is about to go may tell less than it did."""
    return {place: max(some.get(place, b""), others.get(place, b""), key=len) for place in some.keys() | others.keys()}


def live_log(api: Api, spec: StageSpec, cluster: Cluster) -> dict[int, str]:
    """What the pods of an attempt have said so far, by rank."""
    labels = {"run": spec.run, "stage": spec.stage, "attempt": str(spec.attempt)}
    pods = api.list("v1", "Pod", labels=",".join(f"{LABEL}/{key}={value}" for key, value in labels.items()))
    logs = pods_log(api, pods, processes_per_pod(spec, cluster))
    return {place: log.decode("utf-8", "replace") for place, log in logs.items()}
