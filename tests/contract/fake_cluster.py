"""A small API server in memory: objects, owners, and pods of Jobs and PyTorchJobs, which tests bring to their ends."""

import copy
import itertools
import threading
from collections.abc import Iterator
from typing import Any

from isc_jobs.controller.kubernetes.api import AlreadyExists, Api
from isc_jobs.controller.podspec import Object
from isc_jobs.spec.errors import UsageError

_KINDS = {"ConfigMap", "Pod", "Event", "Job", "PyTorchJob"}


class FakeApi(Api):
    """Keeps the promises of ``Api`` that test_api.py holds both to."""

    def __init__(self, namespace: str = "isc-jobs") -> None:
        self.namespace = namespace
        self.objects: dict[tuple[str, str], Object] = {}
        self.logs: dict[str, bytes] = {}
        self.allowed = True
        self._uids = itertools.count(1)
        self._changed = threading.Condition()
        self.closed = False  # ends all watches

    def create(self, item: Object, *, dry_run: bool = False) -> Object:
        key = (item["kind"], item["metadata"]["name"])
        if item["kind"] not in _KINDS:
            raise UsageError(f"the cluster has no {item['kind']} of {item['apiVersion']}: install its operator")
        if key in self.objects:
            raise AlreadyExists(f"cluster: {key[1]} already exists")
        made = copy.deepcopy(item)
        made["metadata"]["uid"] = f"uid-{next(self._uids)}"
        if not dry_run:
            self.objects[key] = made
            for number, template in enumerate(_templates(made)):
                self._make_pod(made, number, template)
        return copy.deepcopy(made)

    def get(self, version: str, kind: str, name: str) -> Object | None:
        return copy.deepcopy(self.objects.get((kind, name)))

    def list(self, version: str, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        found = [item for (of, _), item in self.objects.items() if of == kind]
        return [copy.deepcopy(item) for item in found if _has(item, labels) and _is(item, fields)]

    def delete(self, version: str, kind: str, name: str) -> None:
        item = self.objects.pop((kind, name), None)
        if item is not None:
            for of, owned in list(self.objects):
                owners = self.objects.get((of, owned), {}).get("metadata", {}).get("ownerReferences", [])
                if any(owner["uid"] == item["metadata"]["uid"] for owner in owners):
                    self.delete("", of, owned)
            self._wake()

    def pod_log(self, name: str, container: str | None = None) -> bytes | None:
        return self.logs.get(name) if ("Pod", name) in self.objects else None

    def may(self, group: str, resource: str, verb: str) -> bool:
        return self.allowed

    def watch_pods(self, labels: str, seconds: int) -> Iterator[None]:
        with self._changed:
            while self._changed.wait(seconds) and not self.closed:
                yield

    def close(self) -> None:
        self.closed = True
        self._wake()

    def set_pod(self, name: str, phase: str, **status: object) -> None:
        """What a kubelet would report."""
        self.objects["Pod", name]["status"] |= {"phase": phase, **status}
        self._wake()

    def add_event(self, of: Object, reason: str, message: str) -> None:
        """What a controller or a kubelet would tell of an object."""
        name = f"event-{next(self._uids)}"
        self.objects["Event", name] = {
            "kind": "Event", "metadata": {"name": name}, "reason": reason, "message": message,
            "involvedObject": {"uid": of["metadata"]["uid"], "name": of["metadata"]["name"]},
        }  # fmt: skip

    def names(self, kind: str) -> set[str]:
        """Of all objects of a kind."""
        return {name for of, name in self.objects if of == kind}

    def _make_pod(self, owner: Object, number: int, template: Object) -> None:
        trains = owner["kind"] == "PyTorchJob"
        role = ("master-0" if number == 0 else f"worker-{number - 1}") if trains else str(number)
        labels = dict(template["metadata"]["labels"])
        if trains:
            kind, index = role.split("-")
            labels |= {"training.kubeflow.org/replica-type": kind, "training.kubeflow.org/replica-index": index}
        else:
            labels["batch.kubernetes.io/job-completion-index"] = role
        name = f"{owner['metadata']['name']}-{role}"
        reference = {"kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        self.objects["Pod", name] = {
            "kind": "Pod", "spec": template["spec"], "status": {"phase": "Pending"},
            "metadata": {
                "name": name, "uid": f"uid-{next(self._uids)}", "labels": labels, "ownerReferences": [reference],
            },
        }  # fmt: skip
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _templates(item: Object) -> list[Object]:
    """Of all pods that the object asks for."""
    spec: Any = item.get("spec")
    if item["kind"] == "Job":
        return [spec["template"]] * spec.get("completions", 1)
    if item["kind"] == "PyTorchJob":
        return [r["template"] for r in spec["pytorchReplicaSpecs"].values() for _ in range(r["replicas"])]
    return []


def _has(item: Object, labels: str) -> bool:
    found = item["metadata"].get("labels", {})
    for wanted in filter(None, labels.split(",")):
        key, equals, value = wanted.partition("=")
        if key not in found or (equals and found[key] != value):
            return False
    return True


def _is(item: Object, fields: str) -> bool:
    path, _, value = fields.partition("=")
    return not fields or item["involvedObject"][path.removeprefix("involvedObject.")] == value
