"""Jobs beside the stages, as pure functions: a run's controller in the cluster, and the check of a deployment."""

from isc_jobs.controller.podspec import Object, container, image_of, metadata, pod, pod_metadata
from isc_jobs.spec.errors import ExitCode
from isc_jobs.spec.settings import Cluster

METRICS_PORT = 9464
CONTROLLER_ACCOUNT = "isc-jobs-controller"
_FINAL = [int(code) for code in (ExitCode.USAGE, ExitCode.DATA, ExitCode.INTERNAL, ExitCode.INTERRUPTED)]


def controller_name(run: str) -> str:
    """Of the Job that runs a run's controller."""
    return f"isc-{run}-controller"


def controller_job(run: str, store: str, cluster: Cluster) -> Object:
    """The controller as a Job; a pod that is killed, evicted or finds the store down is followed by another."""
    named = metadata(controller_name(run), {"controller": run}, cluster)
    command = ["-m", "isc_jobs.controller", "resume", run, "--store", store, "--unattended",
               "--metrics-port", str(METRICS_PORT)]  # fmt: skip
    spec = _controller_pod(command, cluster)
    spec["containers"][0]["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT}]
    rules = [
        {"action": "FailJob", "onExitCodes": {"containerName": "controller", "operator": "In", "values": _FINAL}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    return _job(named, spec, {"backoffLimit": 20, "podFailurePolicy": {"rules": rules}})


def check_jobs(name: str, store: str, cluster: Cluster) -> list[Object]:
    """Pods that try the store as stages and as controllers do, and between them pull all images."""
    probe = ["-m", "isc_jobs.store.probe", store]
    stages = [_program("data", probe, cluster), _program("train", ["-c", "import isc_jobs"], cluster)]
    return [
        _job(metadata(f"{name}-stage", {"run": f"{name}-stage"}, cluster), _pod(stages, cluster)),
        _job(
            metadata(f"{name}-controller", {"run": f"{name}-controller", "controller": name}, cluster),
            _controller_pod(probe, cluster),
        ),
    ]


def _controller_pod(arguments: list[str], cluster: Cluster) -> Object:
    """With the controller's account, S3 keys and a token of the API server."""
    account = {"serviceAccountName": CONTROLLER_ACCOUNT, "automountServiceAccountToken": True}
    cluster = cluster.model_copy(update={"s3_secret": cluster.controller_s3_secret or cluster.s3_secret})
    return _pod([_program("controller", arguments, cluster)], cluster) | account


def _pod(containers: list[Object], cluster: Cluster) -> Object:
    return pod(cluster, containers, [{"name": "work", "emptyDir": {}}])


def _program(image: str, arguments: list[str], cluster: Cluster) -> Object:
    """A container of this image, named after it, that needs little."""
    limits = {"cpu": "100m", "memory": "512Mi"}
    resources = {"requests": limits, "limits": {"memory": limits["memory"]}}
    return container(image, image_of(cluster, image), ["python", *arguments], cluster) | {"resources": resources}


def _job(named: Object, spec: Object, rules: Object | None = None) -> Object:
    template = {"metadata": pod_metadata(named), "spec": spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": named,
            "spec": {"backoffLimit": 0, **(rules or {}), "template": template}}  # fmt: skip
