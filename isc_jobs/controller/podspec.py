"""What all our pods share: no token, no root, the restricted Pod Security level, S3 by reference."""

from typing import Any

from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.settings import Cluster, StagePods

LABEL = "isc-jobs.io"
WORK = "/work"
GPU = "nvidia.com/gpu"

Object = dict[str, Any]


def metadata(name: str, labels: dict[str, str], cluster: Cluster) -> Object:
    """Of an object; the settings' labels and annotations beside our own."""
    own = {"app.kubernetes.io/name": "isc-jobs"} | {f"{LABEL}/{key}": value for key, value in labels.items()}
    found: Object = {"name": name, "namespace": cluster.namespace, "labels": cluster.labels | own}
    if cluster.annotations:
        found["annotations"] = cluster.annotations
    return found


def pod_metadata(owner: Object) -> Object:
    """Of the pods of an object with this metadata."""
    return {key: owner[key] for key in ("labels", "annotations") if key in owner}


def pod(cluster: Cluster, containers: list[Object], volumes: list[Object], stage: StagePods | None = None) -> Object:
    """A pod's specification; of a stage it is placed where that stage's pods go."""
    spec: Object = {
        "restartPolicy": "Never", "serviceAccountName": cluster.service_account, "automountServiceAccountToken": False,
        "enableServiceLinks": False, "terminationGracePeriodSeconds": cluster.grace_seconds,
        # A process that is not the first of its namespace ends on SIGTERM even before it has a handler.
        "shareProcessNamespace": True,
        "securityContext": {
            # The user is named for the operator's own init container, which states none.
            "runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers, "volumes": volumes,
    }  # fmt: skip
    optional = {
        "imagePullSecrets": [{"name": name} for name in cluster.pull_secrets],
        "nodeSelector": cluster.node_selector | (stage.node_selector if stage else {}),
        "tolerations": [*cluster.tolerations, *(stage.tolerations if stage else ())],
        "priorityClassName": cluster.priority_class,
    }
    return spec | {key: value for key, value in optional.items() if value}


def container(name: str, image: str, command: list[str], cluster: Cluster) -> Object:
    """A container that may write to its work folder alone."""
    return {
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": [literal(part) for part in command],
        "env": _environment(image, cluster), "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "work", "mountPath": WORK},
            {"name": "work", "mountPath": "/tmp", "subPath": "tmp"},  # noqa: S108 - of the pod, not of this machine
        ],
    }  # fmt: skip


def literal(text: str) -> str:
    """Text that the kubelet leaves as it is: ``$(NAME)`` would become that variable's value, be it a secret."""
    return text.replace("$", "$$")


def variables(values: dict[str, str]) -> list[Object]:
    """A container's variables of these very values."""
    return [{"name": name, "value": literal(value)} for name, value in values.items()]


def image_of(cluster: Cluster, name: str) -> str:
    """The reference of one of the three images; raises UsageError if none is set."""
    image: str | None = getattr(cluster.images, name)
    if image is None:
        raise UsageError(
            f"cluster.images.{name} is not set: run make images and make deploy, whose images "
            "are taken without --source or with --launcher kubernetes; or set it"
        )
    return image


def _environment(image: str, cluster: Cluster) -> list[Object]:
    """Settings by value, credentials by reference."""
    values = {"HOME": WORK, "ISC_JOBS_IMAGE": image, "PYTHONUNBUFFERED": "1"} | cluster.environment
    found = variables(values)
    if cluster.s3_secret is not None:
        keys = {"AWS_ACCESS_KEY_ID": False, "AWS_SECRET_ACCESS_KEY": False, "AWS_SESSION_TOKEN": True}
        found += [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": cluster.s3_secret, "key": name}
                                         | ({"optional": True} if optional else {})}}
            for name, optional in keys.items()
        ]  # fmt: skip
    return found
