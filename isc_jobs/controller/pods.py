"""What a cluster's pods say about an attempt, as pure functions of the objects as dictionaries."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isc_jobs.controller.podspec import GPU, Object
from isc_jobs.spec.errors import ExitCode
from isc_jobs.spec.stage import LastWords

_PERMANENT_WAITS = {"InvalidImageName", "ErrImageNeverPull"}
_WAITS = {"ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "CreateContainerError"}
# What such messages say if waiting cannot help; all else (a registry down, a webhook that is slow) may pass.
_PERMANENT_WORDS = (
    "not found",
    "manifest unknown",
    "unauthorized",
    "denied",
    "invalid",
    "couldn't find key",
    "runasnonroot",
    "violates",
    "must specify",
    "forbidden",
)
_PASSING_WORDS = (
    "exceeded quota",
    "status unknown for quota",
    "failed calling webhook",
    "has been modified",
    "timed out",
    "timeout",
    "deadline",
)
_REFUSED = {"FailedCreate", "FailedCreatePod"}
_TAKEN = {"Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Preempting"}  # where no condition tells
_UNSTARTED = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended."""

    exit_code: int
    reason: str
    pod: str = ""
    evidence: str = ""  # what of the pod's status tells so


@dataclass(frozen=True)
class Waiting:
    """Why an attempt does not run yet; a ``permanent`` cause does not pass by waiting."""

    reason: str
    permanent: bool


def outcome(pods: Sequence[Object], expected: int) -> Outcome | None:
    """Of an attempt with ``expected`` pods: its first failure, or success of all; None while it runs.

    A pod that was disrupted takes its peers with it, some of which may fail before it has ended: it is the cause.
    """
    disruptions = filter(None, map(_disruption, pods))
    first = next(disruptions, None)
    if first is not None:
        return first
    failed = [pod for pod in pods if pod["status"].get("phase") == "Failed"]
    if failed:
        return _failure(min(failed, key=_finished))
    succeeded = [pod for pod in pods if pod["status"].get("phase") == "Succeeded"]
    return Outcome(0, "") if len(succeeded) >= expected else None


def is_over(pods: Sequence[Object], expected: int) -> bool:
    """Whether all pods of an attempt have ended: nothing of it lives any more."""
    return len(pods) >= expected and all(pod["status"].get("phase") in {"Succeeded", "Failed"} for pod in pods)


def is_running(pods: Sequence[Object], expected: int) -> bool:
    """Whether all pods of an attempt are there and none waits."""
    return len(pods) >= expected and not any(pod["status"].get("phase") == "Pending" for pod in pods)


def rank(pod: Object) -> int:
    """Of a pod among those of its attempt: the master first, then workers; or its index in an Indexed Job."""
    labels = pod["metadata"].get("labels") or {}
    if labels.get("training.kubeflow.org/replica-type") == "worker":
        return 1 + int(labels.get("training.kubeflow.org/replica-index", 0))
    return int(labels.get("batch.kubernetes.io/job-completion-index", 0))


def where(pods: Iterable[Object]) -> str:
    """The pods with their nodes and GPUs, in words."""
    return "; ".join(map(_place, sorted(pods, key=rank)))


def _place(pod: Object) -> str:
    spec = pod.get("spec") or {}
    limits = [(part.get("resources") or {}).get("limits") or {} for part in spec.get("containers") or []]
    gpus = sum(int(limit.get(GPU, 0)) for limit in limits)
    node = f" on {spec['nodeName']}" if spec.get("nodeName") else ""
    return f"pod {pod['metadata']['name']}{node}" + (f", {gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "")


def logs_by_rank(log: bytes, first: int) -> dict[int, bytes]:
    """A pod's log as logs of its processes, whose lines torchrun begins with ``<rank>| ``.

    Lines without a rank are of ``first``, the pod's first process; a pod of one process has only such.
    """
    found: dict[int, list[bytes]] = {first: []}
    for line in log.splitlines(keepends=True):
        number, bar, rest = line.partition(b"| ")
        if bar and number.isdigit():
            found.setdefault(int(number), []).append(rest)
        else:
            found[first].append(line)
    return {process: b"".join(lines) for process, lines in found.items()}


def waiting(pods: Sequence[Object], events: Iterable[Object]) -> Waiting | None:
    """Why pods do not run; ``events`` are those of pods that have a place, and of the Job if it lacks pods."""
    for pod in pods:
        cause = _unstarted(pod) or _unscheduled(pod)
        if cause is not None:
            return cause
    told = sorted(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    refused = [event.get("message", "") for event in told if event.get("reason") in _REFUSED]
    if refused:
        return Waiting(f"pods are refused: {refused[-1]}", _is_permanent(refused[-1]))
    unstarted = [event.get("message", "") for event in told if event.get("reason") in _UNSTARTED]
    return Waiting(f"a pod cannot start: {unstarted[-1]}", _is_permanent(unstarted[-1])) if unstarted else None


def suspended(owner: Object | None) -> Waiting | None:
    """Whether a Job or PyTorchJob waits in a queue (Kueue, say), which holds suspended what it has not admitted."""
    spec = (owner or {}).get("spec") or {}
    if spec.get("suspend") or (spec.get("runPolicy") or {}).get("suspend"):
        return Waiting("suspended: a queue has not admitted it yet", permanent=False)
    return None


def is_placed(pod: Object) -> bool:
    """Whether a pending pod has a node, so that its events tell why it does not start."""
    return pod["status"].get("phase") == "Pending" and bool((pod.get("spec") or {}).get("nodeName"))


def _unstarted(pod: Object) -> Waiting | None:
    for status in _containers(pod):
        wait = (status.get("state") or {}).get("waiting") or {}
        reason, message = wait.get("reason", ""), wait.get("message", "")
        if reason in _PERMANENT_WAITS | _WAITS:
            return Waiting(f"{reason}: {message}", reason in _PERMANENT_WAITS or _is_permanent(message))
    return None


def _is_permanent(message: str) -> bool:
    said = message.lower()
    return any(word in said for word in _PERMANENT_WORDS) and not any(word in said for word in _PASSING_WORDS)


def _unscheduled(pod: Object) -> Waiting | None:
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Waiting(f"{condition.get('reason')}: {condition.get('message', '')}", permanent=False)
    return None


def _disruption(pod: Object) -> Outcome | None:
    """If the cluster took the pod away, for whatever end it came to."""
    status, name = pod["status"], pod["metadata"]["name"]
    if _is_beyond_limit(pod) or status.get("phase") == "Succeeded":
        return None
    target = next((c for c in status.get("conditions") or [] if _is_disrupted(c)), None)
    if target is not None:
        cause, message = target.get("reason") or "DisruptionTarget", target.get("message") or status.get("message")
        said = f"pod {name} was evicted: {message or cause}"
        return Outcome(int(ExitCode.TERMINATED), said, name, f"DisruptionTarget, {cause}: {message or ''}")
    if status.get("phase") == "Failed" and status.get("reason") in _TAKEN:
        said = status.get("message") or "disruption"
        return Outcome(int(ExitCode.TERMINATED), f"pod {name} was evicted: {said}", name, f"{status['reason']}: {said}")
    deleted = pod["metadata"].get("deletionTimestamp")
    if deleted is not None:
        return Outcome(int(ExitCode.TERMINATED), f"pod {name} was deleted", name, f"deletionTimestamp {deleted}")
    return None


def _failure(pod: Object) -> Outcome:
    """By the table: the container's own exit, unless it never ran."""
    status, name = pod["status"], pod["metadata"]["name"]
    said = status.get("message") or status.get("reason") or ""
    if _is_beyond_limit(pod):
        return Outcome(137, f"pod {name}: {said}: raise cluster.stages.*.scratch or shared_memory", name, said)
    for container in _containers(pod):
        ended = (container.get("state") or {}).get("terminated")
        if not ended or not (ended.get("exitCode") or ended.get("reason") == "OOMKilled"):
            continue
        code, cause = int(ended.get("exitCode") or 0), ended.get("reason") or "Error"
        evidence = f"container {container.get('name', '')}: {cause}, exit code {code}"
        if cause == "OOMKilled":
            reason = f"pod {name} was out of memory: raise cluster.stages.*.memory of this stage"
            return Outcome(137, reason, name, evidence)
        code, reason = _said(ended) or (code, "")
        return Outcome(code, reason, name, evidence)
    if not _containers(pod) and status.get("reason") != "DeadlineExceeded":
        return Outcome(int(ExitCode.TEMPORARY), f"pod {name} was refused by its node: {said}", name, said)
    return Outcome(int(ExitCode.INTERNAL), f"pod {name} failed: {said}", name, said)


def _is_beyond_limit(pod: Object) -> bool:
    """Whether it was evicted for what it wrote itself."""
    return "exceeds the limit" in str(pod["status"].get("message"))


def _is_disrupted(condition: Object) -> bool:
    return bool(condition["type"] == "DisruptionTarget" and condition["status"] == "True")


def _containers(pod: Object) -> list[Object]:
    status = pod["status"]
    return [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]


def _said(ended: Object) -> tuple[int, str] | None:
    """Exit code and reason as the stage left them in its termination message."""
    said = LastWords.read(ended.get("message") or "")
    return None if said is None else (said.exit_code, said.reason)


def _finished(pod: Object) -> tuple[str, bool]:
    ended = [((c.get("state") or {}).get("terminated") or {}) for c in pod["status"].get("containerStatuses") or []]
    times = [entry.get("finishedAt") or "" for entry in ended]
    terminated = any(entry.get("exitCode") == int(ExitCode.TERMINATED) for entry in ended)
    return min(times, default=""), terminated
