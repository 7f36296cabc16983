"""What a deployed cluster needs before a run, seen by trying it."""

import time
import uuid
from collections.abc import Callable, Iterator

from isc_jobs.controller.jobs import check_jobs
from isc_jobs.controller.kubernetes.api import Api
from isc_jobs.controller.manifests import attempt_objects
from isc_jobs.controller.pods import outcome, waiting
from isc_jobs.controller.podspec import LABEL
from isc_jobs.spec.errors import IscJobsError, UsageError
from isc_jobs.spec.pipeline import Pipeline
from isc_jobs.spec.settings import Cluster

_PULL_S = 900

# What a controller does in its namespace: API group, resource, verbs. The Role of k8s/base grants the same.
RIGHTS = (
    ("", "configmaps", ("create", "get", "list", "delete")),
    ("", "pods", ("list", "watch")),
    ("", "pods/log", ("get",)),
    ("", "events", ("list",)),
    ("batch", "jobs", ("create", "get", "delete")),
    ("kubeflow.org", "pytorchjobs", ("create", "get", "delete")),
)


def check_cluster(api: Api, pipeline: Pipeline, cluster: Cluster, store: str) -> Iterator[tuple[bool | None, str]]:
    """Whether each thing that runs need is there, with a sentence about it; None before what takes long."""
    yield True, f"cluster: reached, namespace {cluster.namespace}"
    checks: tuple[Callable[[], str], ...] = (
        lambda: _rights(api),
        lambda: _objects(api, pipeline, cluster, store),
        lambda: _pods(api, cluster, store),
    )
    for check in checks:
        if check is checks[-1]:
            yield None, "pods: nodes pull the images, which takes minutes the first time"
        try:
            yield True, check()
        except IscJobsError as error:
            yield False, str(error)


def _rights(api: Api) -> str:
    missing = [
        f"{verb} {resource}"
        for group, resource, verbs in RIGHTS
        for verb in verbs
        if not api.may(group, resource, verb)
    ]
    if missing:
        raise UsageError(
            f"permissions: you may not {', '.join(missing)} in {api.namespace}: ask for the Role of k8s/base"
        )
    return "permissions: all that a controller does is allowed"


def _objects(api: Api, pipeline: Pipeline, cluster: Cluster, store: str) -> str:
    """Every kind of object is offered to the server, which keeps none."""
    kinds: dict[str, int] = {}
    for stage in pipeline:
        for item in attempt_objects(stage.spec("check", 1, store), cluster):
            api.create(item, dry_run=True)
            kinds[item["kind"]] = kinds.get(item["kind"], 0) + 1
    return "objects: " + ", ".join(f"{count} {kind}s" for kind, count in kinds.items()) + " would be admitted"


def _pods(api: Api, cluster: Cluster, store: str) -> str:
    """Pods of all three images, which try the store with the accounts of stages and of controllers."""
    jobs = check_jobs(f"isc-check-{uuid.uuid4().hex[:8]}", store, cluster)
    uids = {job["metadata"]["name"]: api.create(job)["metadata"]["uid"] for job in jobs}
    try:
        said = [_wait(api, name, uid) for name, uid in uids.items()]
        return "pods: all images are pulled; " + said[-1]
    finally:
        for name in uids:
            api.delete("batch/v1", "Job", name)


def _wait(api: Api, name: str, uid: str) -> str:
    """The last words of a Job's pod; raises UsageError if it fails or cannot start."""
    deadline = time.monotonic() + _PULL_S
    while time.monotonic() < deadline:
        pods = api.list("v1", "Pod", labels=f"{LABEL}/run={name}")
        found = outcome(pods, 1)
        if found is not None:
            first = pods[0]["spec"]["containers"][0]["name"]
            said = api.pod_log(pods[0]["metadata"]["name"], container=first) or b""
            last = (said.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
            if found.exit_code:
                raise UsageError(f"pods: {name}: {found.reason or last}")
            return last
        cause = waiting(pods, [] if pods else api.list("v1", "Event", fields=f"involvedObject.uid={uid}"))
        if cause is not None and cause.permanent:
            raise UsageError(f"pods: {name} cannot start: {cause.reason}")
        time.sleep(1)
    raise UsageError(f"pods: {name} has not started within {_PULL_S} s: see kubectl describe")
