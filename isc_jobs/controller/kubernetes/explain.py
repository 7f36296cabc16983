"""Why an attempt's pods do not run, asked of the API server."""

from collections.abc import Iterable, Sequence

from isc_jobs.controller.kubernetes.api import Api
from isc_jobs.controller.manifests import attempt_kind, attempt_name
from isc_jobs.controller.pods import Waiting, is_placed, suspended, waiting
from isc_jobs.controller.podspec import Object
from isc_jobs.spec.stage import StageSpec


def explain(api: Api, spec: StageSpec, pods: Sequence[Object], expected: int) -> Waiting | None:
    """The cause, by what pods, events and queues tell; None if the attempt's Job or PyTorchJob was deleted."""
    owner = None
    if len(pods) < expected:
        owner = api.get(*attempt_kind(spec), attempt_name(spec))
        if owner is None:
            return None
    told = _events(api, [*filter(is_placed, pods), *([owner] if owner else [])])
    return suspended(owner) or waiting(pods, told) or Waiting("pods have not started yet", permanent=False)


def _events(api: Api, items: Iterable[Object]) -> list[Object]:
    """By uid: an earlier object of the same name is another story."""
    uids = [item["metadata"]["uid"] for item in items]
    return [event for uid in uids for event in api.list("v1", "Event", fields=f"involvedObject.uid={uid}")]
