"""The API server: objects as plain dictionaries, errors as ours."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from kubernetes import client, config, dynamic, watch

from isc_jobs.controller.podspec import Object
from isc_jobs.spec.errors import TemporaryError, UsageError

_TIMEOUT_S = 30
_PASSING = ("exceeded quota", "status unknown for quota")  # others free it; a new one is counted in a moment
_REFUSED_USER = (
    "cluster: {what}: 401, it does not know whose the credentials are: they have expired or are of another cluster; "
    "renew them (log in again, or another KUBECONFIG), and run again"
)
_POD_GRACE: dict[str, Any] = {"propagationPolicy": "Background"}


class AlreadyExists(UsageError):
    """An object of this name is there."""


class Api:
    """Requests to one namespace, by the pod's service account or the current kubeconfig context."""

    def __init__(self, namespace: str) -> None:
        """Connect; raises UsageError without a configuration, TemporaryError if the server does not answer."""
        self.namespace = namespace
        try:
            in_a_pod = "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
            load: Any = config.load_incluster_config if in_a_pod else config.load_kube_config  # untyped
            load()
        except config.ConfigException as error:
            raise UsageError("no cluster is configured: set KUBECONFIG") from error
        with _explained("discovery"):
            make: Any = dynamic.DynamicClient  # untyped
            self._client = make(client.ApiClient())

    def create(self, item: Object, *, dry_run: bool = False) -> Object:
        """The object as the server has it; raises AlreadyExists or UsageError if it is refused."""
        extra = {"dry_run": "All"} if dry_run else {}
        with _explained(f"{item['kind']} {item['metadata'].get('name', '')}".strip()):
            made = self._resource(item["apiVersion"], item["kind"]).create(
                body=item, namespace=self.namespace, _request_timeout=_TIMEOUT_S, **extra
            )
            return dict(made.to_dict())

    def get(self, version: str, kind: str, name: str) -> Object | None:
        """An object, or None."""
        with _explained(f"{kind} {name}"):
            try:
                found = self._resource(version, kind).get(
                    name=name, namespace=self.namespace, _request_timeout=_TIMEOUT_S
                )
            except dynamic.exceptions.NotFoundError:
                return None
            return dict(found.to_dict())

    def list(self, version: str, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """Objects by label and field selectors."""
        with _explained(kind):
            answer = self._resource(version, kind).get(
                namespace=self.namespace, label_selector=labels, field_selector=fields, _request_timeout=_TIMEOUT_S
            )
            return [dict(item) for item in answer.to_dict()["items"]]

    def delete(self, version: str, kind: str, name: str) -> None:
        """Delete, with what it owns; nothing happens if it is not there."""
        with _explained(f"{kind} {name}"):
            try:
                self._resource(version, kind).delete(
                    name=name, namespace=self.namespace, body=_POD_GRACE, _request_timeout=_TIMEOUT_S
                )
            except dynamic.exceptions.NotFoundError:
                return

    def pod_log(self, name: str, container: str | None = None) -> bytes | None:
        """All that a pod's (one) container has said, None if it has gone or has not begun."""
        extra: dict[str, Any] = {"container": container} if container else {}
        with _explained(f"log of {name}"):
            try:
                answer: Any = client.CoreV1Api(self._client.client).read_namespaced_pod_log(
                    name, self.namespace, _preload_content=False, _request_timeout=_TIMEOUT_S, **extra
                )
                return bytes(answer.data)
            except client.ApiException as error:
                if error.status in {400, 404}:
                    return None
                raise

    def may(self, group: str, resource: str, verb: str) -> bool:
        """Whether the current user may do this in the namespace; ``pods/log`` names a subresource."""
        name, _, subresource = resource.partition("/")
        wanted = {"namespace": self.namespace, "group": group, "resource": name, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": {"resourceAttributes": wanted | ({"subresource": subresource} if subresource else {})},
        }  # fmt: skip
        return bool(self.create(review)["status"]["allowed"])

    def watch_pods(self, labels: str, seconds: int) -> Iterator[None]:
        """Yields whenever a pod changes, ends after ``seconds``."""
        with _explained("watching pods"):
            stream: Any = watch.Watch  # untyped
            for _ in stream().stream(
                self._resource("v1", "Pod").get, namespace=self.namespace, label_selector=labels, serialize=False,
                timeout_seconds=seconds, _request_timeout=seconds + _TIMEOUT_S,
            ):  # fmt: skip
                yield

    def _resource(self, version: str, kind: str) -> Any:
        try:
            return self._client.resources.get(api_version=version, kind=kind)
        except dynamic.exceptions.ResourceNotFoundError as error:
            raise UsageError(f"the cluster has no {kind} of {version}: install its operator") from error


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except dynamic.exceptions.DynamicApiError as error:
        status, message = int(error.status), _message(error)
        if status == 409 and "already exists" in message:
            raise AlreadyExists(f"cluster: {message}") from error
        if status == 401:
            raise TemporaryError(_REFUSED_USER.format(what=what)) from error
        passes = any(words in message for words in _PASSING)
        if status in {400, 403, 404, 422} and not passes:
            raise UsageError(f"cluster refuses {what}: {message}") from error
        raise TemporaryError(f"cluster: {what}: {status} {message}") from error
    except client.ApiException as error:
        if error.status == 401:
            raise TemporaryError(_REFUSED_USER.format(what=what)) from error
        raise TemporaryError(f"cluster: {what}: {error.status} {error.reason}") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TemporaryError(f"the cluster does not answer ({type(error).__name__}): try again") from error


def _message(error: Any) -> str:
    try:
        return str(error.summary()).split("Reason: ", 1)[-1]
    except (KeyError, ValueError, TypeError, AttributeError):
        return str(error.reason)
