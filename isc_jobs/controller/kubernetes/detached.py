"""The controller as a Job of the cluster, for runs that outlive the workstation."""

from pathlib import Path

from isc_jobs.controller.kubernetes.api import AlreadyExists, Api
from isc_jobs.controller.launchers import check_reachable
from isc_jobs.controller.manifest import Manifest, ManifestFile, Request
from isc_jobs.controller.manifests import program_job
from isc_jobs.controller.run import import_weights, pipeline_of
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.settings import Settings
from isc_jobs.store import Store
from isc_jobs.store.listing import keep_listing

_ACCOUNT = "isc-jobs-controller"


def start_controller(store: Store, request: Request, weights: Path | None, listing: Path) -> str:
    """Leave the request in the store and start a Job that resumes it; a sentence about how to follow it.

    The source's ``listing`` goes to the store too. Raises UsageError if the run has a controller there already.
    """
    check_reachable(store, request)
    cluster = Settings.model_validate(request.settings).cluster
    pipeline = pipeline_of(request)
    if weights is not None:
        import_weights(store, request, pipeline, weights)
    api = Api(cluster.namespace)
    name = f"isc-{request.run}-controller"
    arguments = ["isc_jobs.controller", "resume", request.run, "--store", store.uri]
    job = program_job(name, {"controller": request.run}, arguments, cluster, image="controller", account=_ACCOUNT)
    found = api.get("batch/v1", "Job", name)
    if found is not None and not (found["status"].get("succeeded") or found["status"].get("failed")):
        raise UsageError(
            f"run {request.run} has a controller in the cluster already: cancel it or choose another --run"
        )
    if found is not None:
        api.delete("batch/v1", "Job", name)
    keep_listing(store, request.source_digest, listing)
    ManifestFile(store, Manifest(request=request, stages={s.name: s.key for s in pipeline}, state="running", epoch=0))
    try:
        api.create(job)
    except AlreadyExists as error:
        raise UsageError(f"Job {name} of an earlier controller is still ending: run again in a moment") from error
    return f"{name} runs in {cluster.namespace}: isc-jobs status {request.run} --store {store.uri}"
