"""What an attempt's pods have said, by process."""

from collections.abc import Iterable

from isc_jobs.controller.kubernetes.api import Api
from isc_jobs.controller.pods import logs_by_rank, rank
from isc_jobs.controller.podspec import LABEL, Object
from isc_jobs.spec.settings import Settings


def pods_log(api: Api, pods: Iterable[Object], processes: int = 1) -> dict[int, bytes]:
    """The logs of pods with so many processes each, by rank; what has said nothing, or has gone, is left out."""
    found: dict[int, bytes] = {}
    for pod in pods:
        log = api.pod_log(pod["metadata"]["name"])
        if log is not None:
            found |= logs_by_rank(log, rank(pod) * processes)
    return found


def live_controller_log(api: Api, run: str) -> str | None:
    """What the run's controller in the cluster has said so far."""
    logs = pods_log(api, api.list("v1", "Pod", labels=f"{LABEL}/controller={run}"))
    return b"".join(logs.values()).decode("utf-8", "replace") if logs else None


def live_log(api: Api, run: str, stage: str, number: int, settings: Settings) -> dict[int, str]:
    """What the pods of an attempt have said so far, by rank."""
    labels = {"run": run, "stage": stage, "attempt": str(number)}
    pods = api.list("v1", "Pod", labels=",".join(f"{LABEL}/{key}={value}" for key, value in labels.items()))
    trains = stage.startswith("train-")
    processes = settings.compute.processes // settings.cluster.stages.train.pods if trains else 1
    return {place: log.decode("utf-8", "replace") for place, log in pods_log(api, pods, processes).items()}
