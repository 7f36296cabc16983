"""Jobs beside the stages, as pure functions: a run's controller in the cluster, and the check of a deployment."""

from isc_jobs.controller.podspec import Object, container, image_of, metadata, pod, pod_metadata
from isc_jobs.spec.errors import ExitCode
from isc_jobs.spec.settings import Cluster

CONTROLLER_ACCOUNT = "isc-jobs-controller"
_FINAL = [int(code) for code in (ExitCode.USAGE, ExitCode.DATA, ExitCode.INTERNAL, ExitCode.INTERRUPTED)]
_IMPORTS = "import isc_jobs.spec.errors"


def controller_name(run: str) -> str:
    """Of the Job that runs a run's controller."""
    return f"isc-{run}-controller"


def controller_job(run: str, store: str, cluster: Cluster) -> Object:
    """The controller as a Job; a pod that is killed, evicted or finds the store down is followed by another."""
    named = metadata(controller_name(run), {"controller": run}, cluster)
    command = ["python", "-m", "isc_jobs.controller", "resume", run, "--store", store]
    main = _small(container("controller", image_of(cluster, "controller"), command, cluster))
    spec = pod(cluster, [main], [{"name": "work", "emptyDir": {}}])
    spec |= {"serviceAccountName": CONTROLLER_ACCOUNT, "automountServiceAccountToken": True}
    rules = [
        {"action": "FailJob", "onExitCodes": {"containerName": "controller", "operator": "In", "values": _FINAL}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": named,
        "spec": {"backoffLimit": 20, "podFailurePolicy": {"rules": rules},
                 "template": {"metadata": pod_metadata(named), "spec": spec}},
    }  # fmt: skip


def check_job(name: str, store: str, cluster: Cluster) -> Object:
    """A pod with a container of each image; that of data tries the store."""
    named = metadata(name, {"run": name}, cluster)
    programs = {
        "data": ["-m", "isc_jobs.store.probe", store], "train": ["-c", _IMPORTS], "controller": ["-c", _IMPORTS],
    }  # fmt: skip
    containers = [
        _small(container(image, image_of(cluster, image), ["python", *program], cluster))
        for image, program in programs.items()
    ]
    spec = pod(cluster, containers, [{"name": "work", "emptyDir": {}}])
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": named,
        "spec": {"backoffLimit": 0, "template": {"metadata": pod_metadata(named), "spec": spec}},
    }  # fmt: skip


def _small(main: Object) -> Object:
    limits = {"cpu": "100m", "memory": "512Mi"}
    return main | {"resources": {"requests": limits, "limits": {"memory": limits["memory"]}}}
