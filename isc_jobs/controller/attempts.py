"""What attempts leave in the store: their claim, progress, logs and how they ended."""

import gzip
import json
from typing import Any

from isc_jobs.controller.lease import LeaseLost
from isc_jobs.controller.plan import Attempt
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.stage import StageSpec, attempt_prefix
from isc_jobs.store import Conflict, NotFound, Store


def claim(store: Store, spec: StageSpec) -> None:
    """Write the attempt's specification, once: raises LeaseLost if another controller has begun this number."""
    content = spec.model_dump_json(indent=1).encode()
    try:
        store.put(f"{spec.prefix}/spec.json", content, if_none_match=True)
    except Conflict as error:
        if store.get(f"{spec.prefix}/spec.json")[0] != content:
            raise LeaseLost(f"{spec.prefix} was begun by another controller: this one ends") from error


def read_spec(store: Store, run: str, stage: str, number: int) -> StageSpec:
    """The specification of an attempt, as it was claimed; raises UsageError if there is no such attempt."""
    try:
        return StageSpec.model_validate_json(store.get(f"{attempt_prefix(run, stage, number)}/spec.json")[0])
    except NotFound as error:
        raise UsageError(f"{stage} of run {run} has no attempt {number}") from error


def controller_log_key(run: str) -> str:
    """Where the log of a run's controller in a cluster is kept."""
    return f"runs/{run}/controller.txt"


def read_progress(store: Store, prefix: str) -> tuple[dict[str, Any] | None, str]:
    """Progress of an attempt, summed over the pods that share its work, and a tag that changes with it."""
    infos = list(store.list(f"{prefix}/progress"))
    states = []
    for info in infos:
        try:
            states.append(json.loads(store.get(info.key)[0]))
        except NotFound:  # the attempt was begun anew
            continue
    tag = " ".join(info.etag for info in infos)
    if not states:
        return None, tag
    summed = {name: sum(state[name] for state in states) for name in ("step", "total", "rate")}
    return summed | {"eta_s": max(state["eta_s"] for state in states)}, tag


def keep_logs(store: Store, spec: StageSpec, ended: Attempt, logs: dict[int, bytes]) -> None:
    """Write the log of every process by its rank, then how the attempt ended."""
    for rank, text in sorted(logs.items()):
        store.put(f"{spec.prefix}/log-{rank}.txt.gz", gzip.compress(text, mtime=0))
    content = json.dumps({"exit_code": ended.exit_code, "reason": ended.reason}).encode()
    store.put(f"{spec.prefix}/termination.json", content)
