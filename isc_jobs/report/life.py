"""A run's life on a page: the state of each stage while it goes on, its curves, and in the end its scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from isc_jobs.report.page import Section, page, table
from isc_jobs.report.sections import duration, training_figure
from isc_jobs.store.progress import rate_text

History = Sequence[Mapping[str, str]]


def life_page(
    status: Mapping[str, Any], lead: Sequence[str], histories: Mapping[str, History], reload_s: int | None
) -> str:
    """The page of a run that has no scores: sentences, stages, curves by stage; loaded anew every ``reload_s``."""
    stages = status["stages"]
    wanted = [stage for stage in stages if stage["state"] != "left out"]
    done = sum(stage["state"] == "finished" for stage in wanted)
    seconds = sum(stage.get("seconds", 0.0) for stage in stages)
    tiles = [
        (status["state"], "state"),
        (f"{done} of {len(wanted)}", "stages finished"),
        (duration(seconds), "in these"),
    ]
    sections = [stages_section(status), Section("Training", "", curves(histories))]
    return page(f"Copy detection: {status['run']}", list(filter(None, lead)), tiles, sections, reload_s=reload_s)


def stages_section(status: Mapping[str, Any]) -> Section:
    """What each stage does or did, and how attempts ended that did not finish."""
    rows = [_row(stage) for stage in status["stages"]]
    header = ("stage", "state", "attempt", "time or progress", "where, why it waits, last said")
    html = table("Stages", header, rows, words=True)
    failed = [
        (f"{stage['stage']}, attempt {record['attempt']}", record["kind"], _why(record), record["evidence"])
        for stage in status["stages"]
        for record in stage["attempts"]
        if record["kind"] not in {"finished", None}
    ]
    if failed:
        html += table("Attempts that ended otherwise", ("attempt", "counted as", "why", "evidence"), failed, words=True)
    return Section("Run", f"Run {status['run']}: {status['state']}.", html)


def curves(histories: Mapping[str, History]) -> str:
    """Loss and learning rate of each training that has begun."""
    figures = [training_figure(name, rows, number) for number, (name, rows) in enumerate(histories.items(), 1) if rows]
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _row(stage: Mapping[str, Any]) -> tuple[str, ...]:
    progress = stage.get("progress")
    attempts = [record["attempt"] for record in stage["attempts"]] + [stage.get("attempt", 0)]
    number = str(max(attempts) or "")
    notes = [stage.get("where", ""), stage.get("waits", ""), stage.get("reason", ""), (progress or {}).get("line", "")]
    said = "; ".join(filter(None, notes))
    if progress is None or "seconds" in stage:
        took = duration(stage["seconds"]) if "seconds" in stage else ""
        return stage["stage"], stage["state"], number, took, said
    pace = f"{progress['step']:,} of {progress['total']:,}"
    if progress["rate"]:
        pace += f", {rate_text(progress['rate'])}, {duration(progress['eta_s'])} left"
    return stage["stage"], stage["state"], number, pace, said


def _why(record: Mapping[str, Any]) -> str:
    return record["reason"] or f"exit code {record['exit_code']}"
