"""What a run is doing, for people and for programs; logs; cancel."""

import gzip
import json
from typing import Any

from isc_jobs.controller.manifest import Manifest, manifest_key, read_manifest
from isc_jobs.controller.run import cancel_key
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.stage import InputRef
from isc_jobs.store import NotFound, Store
from isc_jobs.store.artifacts import read_commit


def run_status(store: Store, run: str) -> dict[str, Any]:
    """State of the run and of each stage; raises UsageError for an unknown run."""
    manifest, _ = read_manifest(store, run)
    stages = [_stage_status(store, manifest, name, key) for name, key in manifest.stages.items()]
    return {"run": run, "state": manifest.state, "reason": manifest.reason, "store": store.uri, "stages": stages}


def status_table(status: dict[str, Any]) -> str:
    """The status as plain text."""
    lines = [f"run {status['run']}: {status['state']}" + (f" ({status['reason']})" if status["reason"] else "")]
    for stage in status["stages"]:
        progress = stage.get("progress")
        shown = f"{progress['step']}/{progress['total']}, {progress['eta_s']:.0f} s left" if progress else ""
        took = f"{stage['seconds']:.1f} s" if "seconds" in stage else shown
        lines.append(f"  {stage['stage']:<18}{stage['state']:<10}{took:<24}{stage.get('reason', '')}".rstrip())
        if stage["stage"] == "evaluate" and stage["state"] == "finished":
            scores = "".join(f"{name} {value:.5f}  " for name, value in stage["summary"].items())
            lines.append(f"{scores}report: {status['store']}/artifacts/evaluate/{stage['key']}/report.html")
    return "\n".join(lines)


def changed_settings(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[str]:
    """A line for every value that differs, by its key's path."""
    lines = []
    for key in sorted(before.keys() | after.keys()):
        old, new, where = before.get(key), after.get(key), f"{path}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            lines += changed_settings(old, new, f"{where}.")
        elif old != new:
            lines.append(f"{where}: {json.dumps(old)} -> {json.dumps(new)}")
    return lines


def stage_log(store: Store, run: str, stage: str, attempt: int | None, rank: int) -> str:
    """A kept log; the latest attempt's if none is given. Raises UsageError if there is none."""
    manifest, _ = read_manifest(store, run)
    if stage not in manifest.stages:
        raise UsageError(f"run {run} has no stage {stage!r}: expected one of {', '.join(manifest.stages)}")
    number = attempt if attempt is not None else max(_attempts(store, run, stage), default=None)
    if number is None:
        raise UsageError(f"{stage} was not run by {run}: its output was there before")
    try:
        return gzip.decompress(store.get(f"runs/{run}/{stage}/attempt-{number}/log-{rank}.txt.gz")[0]).decode()
    except NotFound as error:
        raise UsageError(
            f"no log of {stage} attempt {number} rank {rank}: there are attempts "
            f"{', '.join(map(str, sorted(_attempts(store, run, stage))))}, and logs are kept when an attempt ends"
        ) from error


def cancel_run(store: Store, run: str) -> str:
    """Ask the run's controller to end it; a sentence about what happens."""
    manifest, etag = read_manifest(store, run)
    if manifest.state != "running":
        return f"run {run} is not running: {manifest.state}"
    if not _is_held(store, run):
        ended = Manifest.model_validate(manifest.model_dump() | {"state": "cancelled", "reason": "cancelled"})
        store.put(manifest_key(run), ended.model_dump_json(indent=1).encode(), if_match=etag)
        return f"run {run} had no living controller and is cancelled"
    store.put(cancel_key(run), b"{}")
    return f"run {run} is asked to end; what is finished stays"


def _stage_status(store: Store, manifest: Manifest, name: str, key: str) -> dict[str, Any]:
    status: dict[str, Any] = {"stage": name, "key": key, "state": "waiting"}
    attempts = [record for record in manifest.attempts if record.stage == name]
    commit = read_commit(store, InputRef(stage=name, key=key))
    if commit is not None:
        return status | {"state": "finished", "seconds": commit.seconds, "summary": commit.summary}
    numbers = _attempts(store, manifest.request.run, name)
    if attempts and (not numbers or attempts[-1].attempt == max(numbers)):
        return status | {"state": "failed", "reason": attempts[-1].reason, "exit_code": attempts[-1].exit_code}
    if numbers and manifest.state == "running":
        status |= {"state": "running", "attempt": max(numbers)}
        info = f"runs/{manifest.request.run}/{name}/attempt-{max(numbers)}/progress.json"
        if store.stat(info) is not None:
            status["progress"] = json.loads(store.get(info)[0])
    return status


def _attempts(store: Store, run: str, stage: str) -> list[int]:
    keys = (info.key for info in store.list(f"runs/{run}/{stage}/attempt-"))
    return [int(key.split("/attempt-")[1].split("/")[0]) for key in keys if key.endswith("/spec.json")]


def _is_held(store: Store, run: str) -> bool:
    import time

    try:
        return bool(json.loads(store.get(f"runs/{run}/lease.json")[0])["expires"] > time.time())
    except NotFound:
        return False
