"""Kubernetes objects as pure functions of a stage's specification and the cluster's settings."""

import json
from typing import Any

from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.settings import Cluster, Resources
from isc_jobs.spec.stage import StageSpec

LABEL = "isc-jobs.io"
_IMAGES = {"train": "train", "extract": "train"}  # all others use the data image
_SPEC, _WORK = "/etc/isc-jobs", "/work"

Object = dict[str, Any]


def run_name(run: str) -> str:
    """Of the ConfigMap that owns all objects of a run."""
    return f"isc-{run}"


def attempt_name(spec: StageSpec) -> str:
    """Of all objects of an attempt."""
    return f"isc-{spec.run}-{spec.stage}-a{spec.attempt}"


def run_owner(run: str, cluster: Cluster) -> Object:
    """The ConfigMap that owns a run's objects: deleting it deletes them."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(run_name(run), {"run": run}, cluster)}


def attempt_objects(spec: StageSpec, cluster: Cluster) -> list[Object]:
    """The specification's ConfigMap, then the Job or PyTorchJob that reads it; raises UsageError without images."""
    labels = {"run": spec.run, "stage": spec.stage, "attempt": str(spec.attempt)}
    metadata = _metadata(attempt_name(spec), labels, cluster)
    specification = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True,
        "data": {"spec.json": spec.model_dump_json(indent=1)},
    }  # fmt: skip
    build = _pytorch_job if spec.program == "train" else _job
    return [specification, build(spec, cluster, metadata)]


def _metadata(name: str, labels: dict[str, str], cluster: Cluster) -> Object:
    own = {"app.kubernetes.io/name": "isc-jobs"} | {f"{LABEL}/{key}": value for key, value in labels.items()}
    metadata: Object = {"name": name, "namespace": cluster.namespace, "labels": cluster.labels | own}
    if cluster.annotations:
        metadata["annotations"] = cluster.annotations
    return metadata


def _job(spec: StageSpec, cluster: Cluster, metadata: Object) -> Object:
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
        "spec": {"backoffLimit": 0, "completions": 1, "parallelism": 1, "template": _template(spec, cluster, metadata)},
    }  # fmt: skip


def _pytorch_job(spec: StageSpec, cluster: Cluster, metadata: Object) -> Object:
    """One Master, the other pods Workers. The operator retries none, and deletes none before its log is kept."""
    replica = {"replicas": 1, "restartPolicy": "Never", "template": _template(spec, cluster, metadata)}
    replicas = {"Master": replica}
    if cluster.training_pods > 1:
        replicas["Worker"] = replica | {"replicas": cluster.training_pods - 1}
    return {
        "apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": metadata,
        "spec": {
            "nprocPerNode": str(_processes(spec) // cluster.training_pods),
            "runPolicy": {"cleanPodPolicy": "None", "backoffLimit": 0},
            "pytorchReplicaSpecs": replicas,
        },
    }  # fmt: skip


def _processes(spec: StageSpec) -> int:
    return int(spec.execution["compute"]["processes"])


def program_job(
    name: str, labels: dict[str, str], arguments: list[str], cluster: Cluster, *, image: str, account: str | None = None
) -> Object:  # fmt: skip
    """A small Job beside the stages, ``python -m ARGUMENTS``; with ``account`` it may use the API server."""
    metadata = _metadata(name, labels, cluster)
    limits = {"cpu": "100m", "memory": "512Mi"}
    container = _container("program", _image(cluster, image), ["python", "-m", *arguments], cluster)
    container |= {"resources": {"requests": limits, "limits": {"memory": limits["memory"]}}}
    pod = _pod(cluster, container, [{"name": "work", "emptyDir": {}}])
    if account is not None:
        pod |= {"serviceAccountName": account, "automountServiceAccountToken": True}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
        "spec": {"backoffLimit": 0, "template": {"metadata": _of_pod(metadata), "spec": pod}},
    }  # fmt: skip


def _template(spec: StageSpec, cluster: Cluster, metadata: Object) -> Object:
    resources: Resources = getattr(cluster.resources, spec.program)
    limits: Object = {"memory": resources.memory}
    if resources.gpus:
        limits["nvidia.com/gpu"] = resources.gpus
    name = "pytorch" if spec.program == "train" else "stage"  # the operator asks for this name
    image = _image(cluster, _IMAGES.get(spec.program, "data"))
    container = _container(name, image, _command(spec, cluster), cluster)
    container["resources"] = {"requests": {"cpu": resources.cpu, "memory": resources.memory}, "limits": limits}
    container["volumeMounts"] += [
        {"name": "spec", "mountPath": _SPEC, "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - of the pod, not of this machine
    ]
    volumes = [
        {"name": "work", "emptyDir": {"sizeLimit": resources.scratch}},
        {"name": "spec", "configMap": {"name": metadata["name"]}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": resources.shared_memory}},
    ]
    return {"metadata": _of_pod(metadata), "spec": _pod(cluster, container, volumes)}


def _of_pod(metadata: Object) -> Object:
    return {key: metadata[key] for key in ("labels", "annotations") if key in metadata}


def _pod(cluster: Cluster, container: Object, volumes: list[Object]) -> Object:
    """What all pods share: no token, no root, the restricted Pod Security level."""
    pod: Object = {
        "restartPolicy": "Never", "serviceAccountName": cluster.service_account, "automountServiceAccountToken": False,
        "enableServiceLinks": False, "terminationGracePeriodSeconds": cluster.grace_seconds,
        # A process that is not the first of its namespace ends on SIGTERM even before it has a handler.
        "shareProcessNamespace": True,
        "securityContext": {
            # The user is named for the operator's own init container, which states none.
            "runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container], "volumes": volumes,
    }  # fmt: skip
    if cluster.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in cluster.pull_secrets]
    if cluster.node_selector:
        pod["nodeSelector"] = cluster.node_selector
    if cluster.tolerations:
        pod["tolerations"] = list(cluster.tolerations)
    if cluster.priority_class is not None:
        pod["priorityClassName"] = cluster.priority_class
    return pod


def _image(cluster: Cluster, name: str) -> str:
    image: str | None = getattr(cluster.images, name)
    if image is None:
        raise UsageError(f"cluster.images.{name} is not set: run make images and make deploy, or set it")
    return image


def _container(name: str, image: str, command: list[str], cluster: Cluster) -> Object:
    return {
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": command,
        "env": _environment(cluster), "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "work", "mountPath": _WORK},
            {"name": "work", "mountPath": "/tmp", "subPath": "tmp"},  # noqa: S108 - of the pod, not of this machine
        ],
    }  # fmt: skip


def _command(spec: StageSpec, cluster: Cluster) -> list[str]:
    """The stage; several processes of a pod are started by torchrun, which reads the operator's variables."""
    program = ["-m", f"isc_jobs.stages.{spec.program}", "--spec", f"{_SPEC}/spec.json", "--work", f"{_WORK}/attempt"]
    if spec.program == "train" and _processes(spec) > cluster.training_pods:
        return ["python", "-m", "torch.distributed.run", "--max-restarts", "0", *program]
    return ["python", *program]


def _environment(cluster: Cluster) -> list[Object]:
    """Settings by value, credentials by reference."""
    values = {
        "HOME": _WORK, "ISC_JOBS_CACHE": f"{_WORK}/cache", "ISC_JOBS_TERMINATION_LOG": "/dev/termination-log",
        "PYTHONUNBUFFERED": "1",
    } | cluster.environment  # fmt: skip
    variables: list[Object] = [{"name": name, "value": value} for name, value in values.items()]
    if cluster.s3_secret is not None:
        variables += [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": cluster.s3_secret, "key": name}}}
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        ]
    return variables


def same_specification(found: Object, wanted: StageSpec) -> bool:
    """Whether an attempt's ConfigMap in the cluster holds this specification."""
    return bool(json.loads(found["data"]["spec.json"]) == wanted.model_dump(mode="json"))
