"""Which launcher a request asks for."""

from collections.abc import Callable

from isc_jobs.controller.launcher import Launcher
from isc_jobs.controller.manifest import Request
from isc_jobs.controller.run import say
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.settings import Settings
from isc_jobs.store import Store


def make_launcher(store: Store, request: Request, keep_alive: Callable[[], None]) -> Launcher:
    """Connect to what shall run the stages; ``keep_alive`` is called while it waits long.

    Raises UsageError if it cannot reach the store or the source.
    """
    if request.launcher == "local":
        from isc_jobs.controller.local import LocalLauncher

        return LocalLauncher(store, request.run, say)
    check_reachable(store, request)
    from isc_jobs.controller.kubernetes.api import Api
    from isc_jobs.controller.kubernetes.launcher import KubernetesLauncher

    cluster = Settings.model_validate(request.settings).cluster
    return KubernetesLauncher(store, request.run, cluster, Api(cluster.namespace), say, keep_alive)


def check_reachable(store: Store, request: Request) -> None:
    """Raises UsageError if a cluster's pods could not reach the store or the source."""
    for name, uri in (("--store", store.uri), ("--source", request.source)):
        if not uri.startswith("s3://"):
            raise UsageError(f"{name} {uri}: a cluster's pods see no folder of this machine, give s3://bucket/prefix")
