"""The controller as a Job of the cluster, for runs that outlive the workstation."""

from isc_jobs.controller.jobs import controller_job, controller_name
from isc_jobs.controller.kubernetes.api import AlreadyExists, Api
from isc_jobs.controller.kubernetes.launcher import own
from isc_jobs.controller.launchers import check_reachable
from isc_jobs.controller.lease import FencedStore, Lease
from isc_jobs.controller.manifest import Manifest, ManifestFile
from isc_jobs.controller.podspec import Object
from isc_jobs.controller.request import (
    Given,
    Request,
    cancel_key,
    check_inputs,
    committed_stages,
    pipeline_of,
    wanted_part,
)
from isc_jobs.spec.errors import UsageError
from isc_jobs.store import Store


def start_controller(store: Store, request: Request, given: Given) -> str:
    """Leave the request in the store and start a Job that resumes it; a sentence about how to follow it.

    Raises UsageError if the run has a controller in the cluster, TemporaryError if it has one elsewhere.
    """
    check_reachable(store.uri, request)
    cluster = request.checked_settings().cluster
    pipeline = pipeline_of(request)
    api = Api(cluster.namespace)
    name = controller_name(request.run)
    job = controller_job(request.run, store.uri, cluster)
    check_inputs(wanted_part(pipeline, request), committed_stages(store, pipeline))
    found = api.get("batch/v1", "Job", name)
    if found is not None and not _has_ended(found):
        raise _living(request.run)
    lease = Lease(store, request.run)
    epoch = lease.acquire()
    try:
        fenced = FencedStore(store, lease)
        fenced.delete(cancel_key(request.run))
        given.bring(fenced, request, pipeline)
        keys = {stage.name: stage.key for stage in pipeline}
        ManifestFile(fenced, Manifest(request=request, stages=keys, state="running", epoch=epoch))
        job["metadata"]["ownerReferences"] = [own(api, request.run, store.uri, cluster)]
        if found is not None:
            api.delete("batch/v1", "Job", name)
        api.create(job)
    except AlreadyExists as error:
        raise _living(request.run) from error
    finally:
        lease.release()
    return f"{name} runs in {cluster.namespace}: isc-jobs status {request.run} --store {store.uri}"


def _living(run: str) -> UsageError:
    return UsageError(f"run {run} has a controller in the cluster: cancel it or choose another --run")


def _has_ended(job: Object) -> bool:
    conditions = job["status"].get("conditions") or []
    return any(c["type"] in {"Complete", "Failed"} and c["status"] == "True" for c in conditions)
