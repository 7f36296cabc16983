"""What a run is doing, for people and for programs; logs; cancel."""

import gzip
import io
import json
import re
import shlex
import time
import zlib
from collections import deque
from typing import Any

from isc_jobs.controller.attempts import controller_log_key, read_progress, termination_key
from isc_jobs.controller.lease import is_held
from isc_jobs.controller.manifest import Manifest, read_manifest
from isc_jobs.controller.plan import describe_exit
from isc_jobs.controller.request import Request, cancel_key
from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.pipeline import Pipeline
from isc_jobs.spec.plain import expected_one_of, plain
from isc_jobs.spec.stage import InputRef, attempt_prefix
from isc_jobs.store import NotFound, Store
from isc_jobs.store.artifacts import read_commit
from isc_jobs.store.progress import clock, rate_text

_SHOWN_BYTES, _BLOCK = 64 << 20, 20  # of a log; two to the power of a block's bytes
_LOG = re.compile(r"/log-(\d{1,6})\.txt\.gz$")
_CLAIM = re.compile(r"/attempt-(\d{1,9})/spec\.json$")


def run_status(store: Store, run: str) -> dict[str, Any]:
    """State of the run and of each stage; raises UsageError for an unknown run."""
    manifest, _ = read_manifest(store, run)
    stages = [stage_status(store, manifest, name, key) for name, key in manifest.stages.items()]
    reason = manifest.reason
    controlled = manifest.state == "running" and is_held(store, run, time.time())
    if manifest.state == "running" and not controlled:
        reason = "no controller lives: resume or cancel it"
    return {"run": run, "state": manifest.state, "reason": reason, "controlled": controlled, "store": store.uri,
            "stages": stages}  # fmt: skip


def status_table(status: dict[str, Any]) -> str:
    """The status as plain text."""
    lines = [f"run {status['run']}: {status['state']}" + (f" ({status['reason']})" if status["reason"] else "")]
    for stage in status["stages"]:
        lines.append(f"  {stage['stage']:<18}{stage['state']:<10}{stage_pace(stage)}".rstrip())
        attempt = [f"attempt {stage['attempt']}"] if stage.get("attempt", 1) > 1 else []
        lines += [f"    {line}" for line in (*attempt, *stage_notes(stage))]
        lines += [_failed_attempt(record) for record in stage["attempts"] if record["kind"] not in {"finished", None}]
        if stage["stage"] == "evaluate" and stage["state"] == "finished":
            lines.append(f"{_scores(stage['summary'])}report: {status['store']}/{report_key(status['run'])}")
    return "\n".join(map(plain, lines))


def stage_pace(stage: dict[str, Any]) -> str:
    """How long a stage took, or how far it is, how fast, and how long it will take."""
    if "seconds" in stage:
        return f"{stage['seconds']:.1f} s"
    progress = stage.get("progress")
    if progress is None:
        return ""
    pace = f"  {rate_text(progress['rate'])}  {clock(progress['eta_s'])} left" if progress["rate"] else ""
    return f"{progress['step']}/{progress['total']}{pace}"


def stage_notes(stage: dict[str, Any]) -> list[str]:
    """Of a running stage: where it is, why it waits, what it said last."""
    said = (stage.get("progress") or {}).get("line", "")
    notes = {"at": stage.get("where", ""), "waits:": stage.get("waits", ""), "said:": said}
    return [f"{name} {text}" for name, text in notes.items() if text]


def _failed_attempt(record: dict[str, Any]) -> str:
    """What it is counted as, why, and what tells so."""
    said = record["reason"] or describe_exit(record["exit_code"])
    evidence = f" [{record['evidence']}]" if record["evidence"] else ""
    return f"    attempt {record['attempt']}: {record['kind']}: {said}{evidence}"


def summary_lines(store: Store, run: str, part: Pipeline) -> list[str]:
    """Seconds per stage, the scores, and how to come by the page and the outputs."""
    found = [(stage.name, commit) for stage in part if (commit := read_commit(store, stage.ref)) is not None]
    lines = [f"  {name:<18}{commit.seconds:>8.1f} s" for name, commit in found]
    lines += [_scores(commit.summary).rstrip() for name, commit in found if name == "evaluate" and commit.summary]
    last = found[-1][0] if found else "STAGE"
    names = [name for name, _ in found if name.startswith("train-")] or [last]
    return [
        *lines,
        f"outputs: isc-jobs fetch {run} {names[-1]} DIR --store {shlex.quote(store.uri)}",
        f"report: {store.uri}/{report_key(run)}",
    ]


def _scores(summary: dict[str, Any]) -> str:
    return "".join(f"{name} {value:.5f}  " for name, value in summary.items())


def report_key(run: str) -> str:
    """Where a run's page is."""
    return f"runs/{run}/report.html"


def changed_request(before: Request, after: Request) -> list[str]:
    """A line for all that differs and may run stages again: settings, the source's pictures, given weights."""
    lines = _changed_settings(before.settings, after.settings)
    if before.source != after.source:
        lines.append(f"source: {before.source} -> {after.source}")
    if before.source_digest != after.source_digest:
        lines.append(f"source: its pictures or tables are others ({before.source_digest[:12]} -> "
                     f"{after.source_digest[:12]}): added, removed, renamed or changed since")  # fmt: skip
    if before.weights_sha256 != after.weights_sha256:
        lines.append(f"weights: {_short(before.weights_sha256)} -> {_short(after.weights_sha256)}")
    return lines


def _short(sha256: str | None) -> str:
    return "none given" if sha256 is None else f"sha256 {sha256[:12]}"


def _changed_settings(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[str]:
    """A line for every value that differs, by its key's path."""
    lines = []
    for key in sorted(before.keys() | after.keys()):
        old, new, where = before.get(key), after.get(key), f"{path}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _changed_settings(old, new, f"{where}.")
        elif old != new:
            lines.append(f"{where}: {json.dumps(old)} -> {json.dumps(new)}")
    return lines


def kept_log(store: Store, run: str, stage: str, number: int, rank: int) -> str | None:
    """The log of a process as it was kept when its attempt ended; of ``controller``, when the run did.

    Of a log of more than 64 MB, the end. Raises DataError for a damaged one.
    """
    try:
        if stage == "controller":
            return store.get(controller_log_key(run))[0].decode("utf-8", "replace")
        key = f"{attempt_prefix(run, stage, number)}/log-{rank}.txt.gz"
        return _unzipped(store.get(key)[0], f"{store.uri}: {key}")
    except NotFound:
        return None


def kept_logs(store: Store, run: str, stage: str, number: int) -> dict[int, str]:
    """All logs of an attempt that has ended, by rank."""
    prefix = f"{attempt_prefix(run, stage, number)}/log-" if stage != "controller" else controller_log_key(run)
    ranks = [int(match[1]) for info in store.list(prefix) if (match := _LOG.search(info.key))]
    logs = {rank: kept_log(store, run, stage, number, rank) for rank in ranks or [0]}
    return {rank: log for rank, log in logs.items() if log is not None}


def is_over(store: Store, run: str, stage: str, number: int) -> bool:
    """Whether an attempt has ended and its logs are kept; of ``controller``, whether the run has ended."""
    if stage == "controller":
        return has_ended(store, run)
    ended = ((record.stage, record.attempt) for record in read_manifest(store, run)[0].attempts)
    return (stage, number) in ended and store.stat(termination_key(attempt_prefix(run, stage, number))) is not None


def _unzipped(data: bytes, name: str) -> str:
    """The end of a log; raises DataError for damaged bytes."""
    kept: deque[bytes] = deque(maxlen=_SHOWN_BYTES >> _BLOCK)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while block := file.read(1 << _BLOCK):
                kept.append(block)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is damaged: {error}") from error
    return b"".join(kept).decode("utf-8", "replace")


def no_log(store: Store, run: str, stage: str, number: int, rank: int) -> UsageError:
    """What to say where no log is."""
    if stage == "controller":
        return UsageError(f"run {run} has no controller in a cluster")
    kept = (_LOG.search(info.key) for info in store.list(f"{attempt_prefix(run, stage, number)}/log-"))
    if ranks := sorted(int(match[1]) for match in kept if match):
        return UsageError(f"no log of {stage} attempt {number} rank {rank}: it has rank {', '.join(map(str, ranks))}")
    known = ", ".join(map(str, sorted(_attempts(store, run, stage))))
    return UsageError(
        f"no log of {stage} attempt {number} rank {rank}: there are attempts {known}, "
        "and the log of one that has not ended is on the machine or in the cluster where it runs"
    )


def latest_attempt(store: Store, run: str, stage: str) -> int:
    """The number of a stage's latest attempt; raises UsageError if it has none."""
    manifest, _ = read_manifest(store, run)
    if stage not in manifest.stages:
        raise UsageError(f"run {run} has no stage {stage!r}: {expected_one_of(stage, manifest.stages)}")
    number = max(_attempts(store, run, stage), default=None)
    if number is None:
        raise UsageError(f"{stage} was not run by {run}: its output was there before, or it has not begun")
    return number


def request_cancel(store: Store, run: str) -> str:
    """Leave the wish that the run's controller ends it; a sentence about what happens."""
    if has_ended(store, run):
        return f"run {run} is not running: {read_manifest(store, run)[0].state}"
    store.put(cancel_key(run), b"{}")
    return f"run {run} is asked to end; what is finished stays"


def has_ended(store: Store, run: str) -> bool:
    """Whether nothing of the run can be running; an interrupted run may have left pods in a cluster."""
    return read_manifest(store, run)[0].state in {"succeeded", "failed", "cancelled"}


def stage_status(store: Store, manifest: Manifest, name: str, key: str) -> dict[str, Any]:
    """What a stage of the run does or did."""
    status: dict[str, Any] = {"stage": name, "key": key, "state": "waiting" if manifest.wants(name) else "left out"}
    recorded = [record for record in manifest.attempts if record.stage == name]
    attempts = [record for record in recorded if record.key in {None, key}]  # others were of other settings or data
    status["attempts"] = [record.model_dump(exclude={"stage", "key"}) for record in attempts]
    commit = read_commit(store, InputRef(stage=name, key=key))
    if commit is not None:
        return status | {"state": "finished", "seconds": commit.seconds, "summary": commit.summary}
    numbers = _attempts(store, manifest.request.run, name)
    if attempts and (not numbers or attempts[-1].attempt == max(numbers)):
        last = attempts[-1]
        return status | {"state": last.state, "reason": last.reason, "exit_code": last.exit_code}
    if numbers and manifest.state == "running" and max(numbers) not in {record.attempt for record in recorded}:
        status |= {"state": "running", "attempt": max(numbers)}
        for record in manifest.running:
            if (record.stage, record.attempt) == (name, max(numbers)):
                status |= {"where": record.where, "waits": record.waits}
        progress, _ = read_progress(store, attempt_prefix(manifest.request.run, name, max(numbers)))
        if progress is not None:
            status["progress"] = progress
    return status


def _attempts(store: Store, run: str, stage: str) -> list[int]:
    found = (_CLAIM.search(info.key) for info in store.list(f"runs/{run}/{stage}/attempt-"))
    return [int(match[1]) for match in found if match]
