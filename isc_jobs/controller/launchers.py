"""Which launcher a request asks for, and what it is patient with."""

from isc_jobs.controller.launcher import Launcher
from isc_jobs.controller.lease import FencedStore
from isc_jobs.controller.plan import Policy
from isc_jobs.controller.request import Request
from isc_jobs.controller.run import say
from isc_jobs.spec.errors import UsageError

_OUTAGE_S = 900.0


def policy_of(request: Request) -> Policy:
    """In a cluster stages go on while the controller waits for a store or an API server that is away."""
    return Policy(
        silence_s=request.checked_settings().compute.silence_seconds,
        patience_s=_OUTAGE_S if request.launcher == "kubernetes" else 0.0,
    )


def make_launcher(store: FencedStore, request: Request) -> Launcher:
    """Connect to what shall run the stages; raises UsageError if it cannot reach the store or the source."""
    if request.launcher == "local":
        from isc_jobs.controller.local import LocalLauncher

        return LocalLauncher(store, request.run, say)
    check_reachable(store.uri, request)
    from isc_jobs.controller.kubernetes.api import Api
    from isc_jobs.controller.kubernetes.launcher import KubernetesLauncher

    cluster = request.checked_settings().cluster
    return KubernetesLauncher(store, request.run, cluster, Api(cluster.namespace), say)


def check_reachable(store: str, request: Request) -> None:
    """Raises UsageError if a cluster's pods could not reach the store or the source."""
    for name, uri in (("--store", store), ("--source", request.source)):
        if not uri.startswith("s3://"):
            raise UsageError(f"{name} {uri}: a cluster's pods see no folder of this machine, give s3://bucket/prefix")
