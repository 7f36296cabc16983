"""What attempts leave in the store: their claim, progress, logs and how they ended."""

import gzip
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from isc_jobs.controller.lease import LeaseLost
from isc_jobs.controller.plan import Attempt
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.stage import StageSpec, attempt_prefix
from isc_jobs.store import Conflict, NotFound, Store


class _Progress(BaseModel):
    """What is read of an attempt's progress."""

    model_config = ConfigDict(allow_inf_nan=False)

    step: int
    total: int
    rate: float
    eta_s: float
    unix_time: float = 0.0
    line: str = ""
    loss: float | None = None
    lr: float | None = None


def claim(store: Store, spec: StageSpec) -> None:
    """Write the attempt's specification, once: raises LeaseLost if another controller has begun this number."""
    content = spec.model_dump_json(indent=1).encode()
    try:
        store.put(f"{spec.prefix}/spec.json", content, if_none_match=True)
    except Conflict as error:
        if store.get(f"{spec.prefix}/spec.json")[0] != content:
            raise LeaseLost(f"{spec.prefix} was begun by another controller: this one ends") from error


def read_spec(store: Store, run: str, stage: str, number: int) -> StageSpec:
    """The specification of an attempt, as it was claimed; raises UsageError for no attempt, DataError if damaged."""
    key = f"{attempt_prefix(run, stage, number)}/spec.json"
    try:
        return StageSpec.parse(store.get(key)[0], f"{store.uri}: {key}")
    except NotFound as error:
        raise UsageError(f"{stage} of run {run} has no attempt {number}") from error


def used_numbers(store: Store, run: str) -> dict[str, int]:
    """The highest attempt number of each stage, so that none is used twice."""
    used: dict[str, int] = {}
    for info in store.list(f"runs/{run}/"):
        stage, _, rest = info.key.removeprefix(f"runs/{run}/").partition("/attempt-")
        if rest.endswith("/spec.json"):
            used[stage] = max(used.get(stage, 0), int(rest.split("/")[0]))
    return used


def controller_log_key(run: str) -> str:
    """Where the log of a run's controller in a cluster is kept."""
    return f"runs/{run}/controller.txt"


def termination_key(prefix: str) -> str:
    """Where is how an attempt ended, written after its logs."""
    return f"{prefix}/termination.json"


def read_progress(store: Store, prefix: str) -> tuple[dict[str, Any] | None, str]:
    """Progress of an attempt, summed over the pods that share its work, and a tag that changes with it."""
    infos = [info for info in store.list(f"{prefix}/progress") if info.key.endswith(".json")]
    states = []
    for info in infos:
        try:
            states.append(_Progress.model_validate_json(store.get(info.key)[0]))
        except (NotFound, ValidationError):  # the attempt was begun anew; what is damaged is written anew in a moment
            continue
    tag = " ".join(info.etag for info in infos)
    if not states:
        return None, tag
    summed = {name: sum(getattr(state, name) for state in states) for name in ("step", "total", "rate")}
    values = {name: value for name in ("loss", "lr") if (value := getattr(states[0], name)) is not None}
    latest = max(states, key=lambda state: state.unix_time)
    return summed | {"eta_s": max(state.eta_s for state in states), "line": latest.line} | values, tag


def keep_logs(store: Store, spec: StageSpec, ended: Attempt, logs: dict[int, bytes]) -> None:
    """Write the log of every process by its rank, then how the attempt ended."""
    for rank, text in sorted(logs.items()):
        store.put(f"{spec.prefix}/log-{rank}.txt.gz", gzip.compress(text, mtime=0))
    said = {name: getattr(ended, name) for name in ("exit_code", "reason", "pod", "evidence")}
    content = json.dumps(said).encode()
    store.put(termination_key(spec.prefix), content)
