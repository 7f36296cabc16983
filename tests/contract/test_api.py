"""The API server as we use it: the fake and a real one keep the same promises."""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from fake_cluster import FakeApi

from isc_jobs.controller.kubernetes.api import AlreadyExists, Api
from isc_jobs.controller.podspec import Object
from isc_jobs.spec.errors import UsageError

REAL = pytest.param("real", marks=pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="KUBECONFIG is not set"))


@pytest.fixture(params=["fake", REAL])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    if request.param == "fake":
        yield FakeApi()
        return
    namespace = f"isc-contract-{uuid.uuid4().hex[:8]}"
    subprocess.run(["kubectl", "create", "namespace", namespace], check=True)
    yield Api(namespace)
    subprocess.run(["kubectl", "delete", "namespace", namespace, "--wait=false"], check=True)


def config_map(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "b"}}


def job(name: str, pods: int) -> Object:
    container = {"name": "stage", "image": "registry.invalid/none", "command": ["none"]}
    template = {"metadata": {"labels": {"of": name}}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    spec = {"completionMode": "Indexed", "completions": pods, "parallelism": pods, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_what_is_created_is_there_once_until_it_is_deleted(api: Api) -> None:
    assert api.get("v1", "ConfigMap", "one") is None
    made = api.create(config_map("one"))
    found = api.get("v1", "ConfigMap", "one")
    assert found is not None
    assert (found["metadata"]["uid"], found["data"]) == (made["metadata"]["uid"], {"a": "b"})
    with pytest.raises(AlreadyExists):
        api.create(config_map("one"))
    api.delete("v1", "ConfigMap", "one")
    api.delete("v1", "ConfigMap", "one")
    assert api.get("v1", "ConfigMap", "one") is None


def test_a_dry_run_keeps_nothing(api: Api) -> None:
    api.create(config_map("one"), dry_run=True)
    assert api.get("v1", "ConfigMap", "one") is None


def test_a_kind_that_the_server_lacks_is_said(api: Api) -> None:
    with pytest.raises(UsageError, match="the cluster has no Nonsense of v1: install its operator"):
        api.create({"apiVersion": "v1", "kind": "Nonsense", "metadata": {"name": "x"}})


def test_a_list_is_of_labels_with_a_value_or_any(api: Api) -> None:
    api.create(config_map("one", run="a", stage="x"))
    api.create(config_map("two", run="a"))
    api.create(config_map("three", run="b"))
    for labels, names in (("run=a", {"one", "two"}), ("run=a,stage", {"one"}), ("run=c", set[str]())):
        assert {item["metadata"]["name"] for item in api.list("v1", "ConfigMap", labels=labels)} == names


def test_what_an_object_owns_goes_with_it(api: Api) -> None:
    owner = api.create(config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned = config_map("owned")
    owned["metadata"]["ownerReferences"] = [reference]
    api.create(owned)
    api.delete("v1", "ConfigMap", "owner")
    eventually(lambda: api.get("v1", "ConfigMap", "owned") is None)


def test_a_jobs_pods_have_its_labels_and_their_index_and_go_with_it(api: Api) -> None:
    api.create(job("work", 2))
    eventually(lambda: len(api.list("v1", "Pod", labels="of=work")) == 2)
    pods = api.list("v1", "Pod", labels="of=work")
    indexes = {pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in pods}
    assert indexes == {"0", "1"}
    assert {pod["status"]["phase"] for pod in pods} == {"Pending"}
    api.delete("batch/v1", "Job", "work")
    eventually(lambda: not api.list("v1", "Pod", labels="of=work"))


def test_the_log_of_a_pod_that_is_not_there_is_none(api: Api) -> None:
    assert api.pod_log("absent") is None


def test_a_watch_tells_of_new_pods(api: Api) -> None:
    seen = threading.Event()

    def look() -> None:
        for _ in api.watch_pods("of=work", 20):
            seen.set()
            return

    threading.Thread(target=look, daemon=True).start()
    time.sleep(0.5)
    api.create(job("work", 1))
    assert seen.wait(20)
    api.delete("batch/v1", "Job", "work")


def test_events_are_those_of_one_object(api: Api) -> None:
    made = api.create(config_map("one"))
    assert api.list("v1", "Event", fields=f"involvedObject.uid={made['metadata']['uid']}") == []


def test_rights_are_answered(api: Api) -> None:
    assert api.may("", "pods/log", "get")
