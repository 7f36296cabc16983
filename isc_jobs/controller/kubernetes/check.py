"""What a deployed cluster needs before a run, seen by trying it."""

import time
import uuid
from collections.abc import Iterator

from isc_jobs.controller.kubernetes.api import Api
from isc_jobs.controller.manifests import LABEL, attempt_objects, program_job
from isc_jobs.controller.pods import outcome, waiting
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.pipeline import Pipeline
from isc_jobs.spec.settings import Cluster

_PULL_S = 600


def check_cluster(api: Api, pipeline: Pipeline, cluster: Cluster, store: str) -> Iterator[str]:
    """A sentence for everything that is in order; raises UsageError for the first thing that is not."""
    yield f"cluster: reached, namespace {cluster.namespace}"
    kinds: dict[str, int] = {}
    for stage in pipeline:
        for item in attempt_objects(stage.spec("check", 1, store), cluster):
            api.create(item, dry_run=True)
            kinds[item["kind"]] = kinds.get(item["kind"], 0) + 1
    yield "objects: " + ", ".join(f"{count} {kind}s" for kind, count in kinds.items()) + " would be admitted"
    if cluster.s3_secret is not None and api.get("v1", "Secret", cluster.s3_secret) is None:
        raise UsageError(
            f"secret {cluster.s3_secret} is missing in {cluster.namespace}: make it with AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or set cluster.s3_secret to null"
        )
    name = f"isc-check-{uuid.uuid4().hex[:8]}"
    api.create(program_job(name, {"run": name}, ["isc_jobs.store.probe", store], cluster, image="data"))
    try:
        yield "from a pod: " + _wait(api, name)
    finally:
        api.delete("batch/v1", "Job", name)


def _wait(api: Api, name: str) -> str:
    deadline = time.monotonic() + _PULL_S
    while time.monotonic() < deadline:
        pods = api.list("v1", "Pod", labels=f"{LABEL}/run={name}")
        found = outcome(pods, 1)
        if found is not None:
            said = (api.pod_log(pods[0]["metadata"]["name"]) or b"").decode("utf-8", "replace").strip().splitlines()
            last = said[-1] if said else ""
            if found.exit_code:
                raise UsageError(f"a pod could not reach the store: {last or found.reason}")
            return last
        cause = waiting(pods, [] if pods else api.list("v1", "Event", fields=f"involvedObject.name={name}"))
        if cause is not None and cause.permanent:
            raise UsageError(f"a pod cannot start: {cause.reason}")
        time.sleep(1)
    raise UsageError(f"a pod has not started within {_PULL_S} s: see kubectl describe")
