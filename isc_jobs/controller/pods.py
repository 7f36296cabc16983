"""What a cluster's pods say about an attempt, as pure functions of the objects as dictionaries."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isc_jobs.controller.manifests import Object
from isc_jobs.spec.errors import ExitCode

_PERMANENT_WAITS = {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"}
_PULL_WAITS = {"ErrImagePull", "ImagePullBackOff"}


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended."""

    exit_code: int
    reason: str


@dataclass(frozen=True)
class Waiting:
    """Why an attempt does not run yet; a ``permanent`` cause does not pass by waiting."""

    reason: str
    permanent: bool


def outcome(pods: Sequence[Object], expected: int) -> Outcome | None:
    """Of an attempt with ``expected`` pods: its first failure, or success of all; None while it runs."""
    failed = [pod for pod in pods if pod["status"].get("phase") == "Failed"]
    if failed:
        return _failure(min(failed, key=_finished))
    if any(_is_deleted(pod) for pod in pods):
        name = next(pod["metadata"]["name"] for pod in pods if _is_deleted(pod))
        return Outcome(int(ExitCode.TERMINATED), f"pod {name} was deleted")
    succeeded = [pod for pod in pods if pod["status"].get("phase") == "Succeeded"]
    return Outcome(0, "") if len(succeeded) >= expected else None


def waiting(pods: Sequence[Object], events: Iterable[Object]) -> Waiting | None:
    """Why pods are not running or absent; ``events`` are those of the attempt's objects."""
    for pod in pods:
        for status in _containers(pod):
            wait = (status.get("state") or {}).get("waiting") or {}
            reason, message = wait.get("reason", ""), wait.get("message", "")
            if reason in _PERMANENT_WAITS | _PULL_WAITS:
                return Waiting(f"{reason}: {message}", permanent=True)
        for condition in pod["status"].get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return Waiting(f"{condition.get('reason')}: {condition.get('message', '')}", permanent=False)
    if not pods:
        refused = [event for event in events if event.get("reason") in {"FailedCreate", "FailedCreatePod"}]
        if refused:
            return Waiting(f"pods are refused: {refused[-1].get('message', '')}", permanent=True)
    return None


def _failure(pod: Object) -> Outcome:
    """By the table: evictions and deletions are disruptions, all else is the container's own exit."""
    status, name = pod["status"], pod["metadata"]["name"]
    if status.get("reason") == "Evicted" or any(
        c["type"] == "DisruptionTarget" for c in status.get("conditions") or []
    ):
        return Outcome(int(ExitCode.TERMINATED), f"pod {name} was evicted: {status.get('message') or 'disruption'}")
    for container in _containers(pod):
        ended = (container.get("state") or {}).get("terminated")
        if ended and ended.get("reason") == "OOMKilled":
            return Outcome(137, f"pod {name} was out of memory: raise cluster.resources of this stage")
        if ended and ended.get("exitCode"):
            return _said(ended) or Outcome(int(ended["exitCode"]), "")
    return Outcome(int(ExitCode.INTERNAL), f"pod {name} failed: {status.get('message') or status.get('reason') or ''}")


def _containers(pod: Object) -> list[Object]:
    status = pod["status"]
    return [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]


def _said(ended: Object) -> Outcome | None:
    """Exit code and reason as the stage left them in its termination message."""
    try:
        said = json.loads(ended.get("message") or "")
        return Outcome(int(said["exit_code"]), str(said["reason"]))
    except (ValueError, KeyError, TypeError):
        return None


def _finished(pod: Object) -> tuple[str, bool]:
    ended = [((c.get("state") or {}).get("terminated") or {}) for c in pod["status"].get("containerStatuses") or []]
    times = [entry.get("finishedAt") or "" for entry in ended]
    terminated = any(entry.get("exitCode") == int(ExitCode.TERMINATED) for entry in ended)
    return min(times, default=""), terminated


def _is_deleted(pod: Object) -> bool:
    return pod["metadata"].get("deletionTimestamp") is not None
