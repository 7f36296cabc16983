"""Kubernetes objects of a run's attempts, as pure functions of a stage's specification and the cluster's settings."""

from isc_jobs.controller.podspec import (
    GPU,
    LABEL,
    WORK,
    Object,
    container,
    image_of,
    metadata,
    pod,
    pod_metadata,
    variables,
)
from isc_jobs.spec.settings import Cluster, StagePods
from isc_jobs.spec.stage import StageSpec

_IMAGES = {"train": "train", "extract": "train"}  # all others use the data image
_SPEC = "/etc/isc-jobs"
_LAST_S = 10  # of the grace period, which torchrun needs to end
_RANK_PREFIX = "${rank}| "  # what torchrun puts before each line of a process


def run_name(run: str) -> str:
    """Of the ConfigMap that owns all objects of a run."""
    return f"isc-{run}"


def object_name(run: str, stage: str, number: int) -> str:
    """Of all objects of an attempt."""
    return f"{run_name(run)}-{stage}-a{number}"


def attempt_name(spec: StageSpec) -> str:
    """Of all objects of the attempt of this specification."""
    return object_name(spec.run, spec.stage, spec.attempt)


def attempt_kind(spec: StageSpec) -> tuple[str, str]:
    """API version and kind of what runs the attempt's pods."""
    return ("kubeflow.org/v1", "PyTorchJob") if spec.program == "train" else ("batch/v1", "Job")


def stage_pods(spec: StageSpec, cluster: Cluster) -> StagePods:
    """The settings of the stage's pods."""
    found: StagePods = getattr(cluster.stages, spec.program)
    return found


def run_owner(run: str, store: str, cluster: Cluster) -> Object:
    """The ConfigMap that owns a run's objects: deleting it deletes them. Its store tells runs of one name apart."""
    named = metadata(run_name(run), {"run": run}, cluster)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": {"store": store}}


def attempt_objects(spec: StageSpec, cluster: Cluster) -> list[Object]:
    """The specification's ConfigMap, then the Job or PyTorchJob that reads it; raises UsageError without images."""
    labels = {"run": spec.run, "stage": spec.stage, "attempt": str(spec.attempt)}
    named = metadata(attempt_name(spec), labels, cluster)
    specification = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "immutable": True,
        "data": {"spec.json": spec.model_dump_json(indent=1)},
    }  # fmt: skip
    version, kind = attempt_kind(spec)
    build = _pytorch_job if spec.program == "train" else _job
    workload = {"apiVersion": version, "kind": kind, "metadata": named, "spec": build(spec, cluster, named)}
    return [specification, workload]


def _job(spec: StageSpec, cluster: Cluster, named: Object) -> Object:
    """One pod, or an Indexed Job whose pods share the work. The Job retries none: the controller decides."""
    pods, template = stage_pods(spec, cluster).pods, _template(spec, cluster, named)
    if pods == 1:
        return {"backoffLimit": 0, "template": template}
    # Per index, so that a failed pod does not make the Job delete the others before their logs are kept.
    return {"completionMode": "Indexed", "completions": pods, "parallelism": pods, "backoffLimitPerIndex": 0,
            "template": template}  # fmt: skip


def _pytorch_job(spec: StageSpec, cluster: Cluster, named: Object) -> Object:
    """One Master, the other pods Workers. The operator retries none, and deletes none before its log is kept."""
    pods = stage_pods(spec, cluster).pods
    replica = {"replicas": 1, "restartPolicy": "Never", "template": _template(spec, cluster, named)}
    replicas = {"Master": replica}
    if pods > 1:
        replicas["Worker"] = replica | {"replicas": pods - 1}
    return {
        "nprocPerNode": str(processes_per_pod(spec, cluster)),
        "runPolicy": {"cleanPodPolicy": "None", "backoffLimit": 0},
        "pytorchReplicaSpecs": replicas,
    }


def processes_per_pod(spec: StageSpec, cluster: Cluster) -> int:
    """How many processes of a training one of its pods holds; 1 for other stages."""
    return int(spec.execution["compute"]["processes"]) // cluster.stages.train.pods if spec.program == "train" else 1


def _template(spec: StageSpec, cluster: Cluster, named: Object) -> Object:
    settings = stage_pods(spec, cluster)
    name = "pytorch" if spec.program == "train" else "stage"  # the operator asks for this name
    main = container(name, image_of(cluster, _IMAGES.get(spec.program, "data")), _command(spec, cluster), cluster)
    main["env"] += _stage_environment(spec, settings.pods, cluster.grace_seconds)
    main["resources"] = _resources(settings)
    main["volumeMounts"] += [
        {"name": "spec", "mountPath": _SPEC, "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - of the pod, not of this machine
    ]
    volumes = [
        {"name": "work", "emptyDir": {"sizeLimit": settings.scratch}},
        {"name": "spec", "configMap": {"name": named["name"]}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
    ]
    return {"metadata": pod_metadata(named), "spec": pod(cluster, [main], volumes, settings)}


def _resources(settings: StagePods) -> Object:
    limits: Object = {"memory": settings.memory}
    if settings.gpus:
        limits[GPU] = settings.gpus
    requests = {"cpu": settings.cpu, "memory": settings.memory, "ephemeral-storage": settings.scratch}
    return {"requests": requests, "limits": limits}


def _command(spec: StageSpec, cluster: Cluster) -> list[str]:
    """The stage; several processes of a pod are started by torchrun, which reads the operator's variables.

    Each of their lines begins with the rank, so that the pod's one log can be told apart.
    """
    program = ["-m", f"isc_jobs.stages.{spec.program}", "--spec", f"{_SPEC}/spec.json", "--work", f"{WORK}/attempt"]
    if processes_per_pod(spec, cluster) > 1:
        return ["python", "-m", "torch.distributed.run", "--max-restarts", "0", "--tee", "3", *program]
    return ["python", *program]


def _stage_environment(spec: StageSpec, pods: int, grace_seconds: int) -> list[Object]:
    values = {"ISC_JOBS_CACHE": f"{WORK}/cache", "ISC_JOBS_TERMINATION_LOG": "/dev/termination-log"}
    if spec.program == "train":
        values["TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"] = _RANK_PREFIX
        # Until torchrun kills its processes, which write a checkpoint on SIGTERM.
        values["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(max(1, grace_seconds - _LAST_S))
    elif pods > 1:
        values["ISC_JOBS_PARTS"] = str(pods)
    return variables(values)


def specification(found: Object) -> StageSpec:
    """What an attempt's ConfigMap in the cluster holds; raises DataError that names it."""
    text = (found.get("data") or {}).get("spec.json", "")
    return StageSpec.parse(text, f"ConfigMap {found['metadata']['name']}: spec.json")


def same_specification(found: Object, wanted: StageSpec) -> bool:
    """Whether an attempt's ConfigMap in the cluster holds this specification."""
    return specification(found).model_dump(mode="json") == wanted.model_dump(mode="json")


def run_labels(run: str) -> str:
    """The selector of all objects of a run's attempts."""
    return f"{LABEL}/run={run}"
