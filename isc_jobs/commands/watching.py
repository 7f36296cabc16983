"""A run's status while it changes: a live table on a terminal, elsewhere a line for whatever is new."""

import sys
import time
from typing import TYPE_CHECKING, Any

from isc_jobs.controller.status import run_status, stage_notes, stage_pace, status_table
from isc_jobs.spec.plain import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from isc_jobs.store import Store

_LOOK_S = 2.0
_BAR = 8  # columns of a terminal
_COLOURS = {
    "finished": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "waiting": "dim",
    "left out": "dim",
}  # fmt: skip


def watch(store: "Store", run: str) -> None:
    """Show the run until nobody works on it."""
    if sys.stdout.isatty():
        _watch_live(store, run)
    else:
        _watch_lines(store, run)


def goes_on(status: dict[str, Any]) -> bool:
    """Whether a controller works on the run."""
    return bool(status["controlled"])


def _watch_lines(store: "Store", run: str) -> None:
    shown: set[str] = set()
    while True:
        status = run_status(store, run)
        lines = status_table(status).splitlines()
        for line in lines:
            if line not in shown:
                print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
        shown = set(lines)
        if not goes_on(status):
            return
        time.sleep(_LOOK_S)


def _watch_live(store: "Store", run: str) -> None:
    from rich.live import Live

    status = run_status(store, run)
    with Live(live_table(status), refresh_per_second=4, screen=False) as live:
        while goes_on(status):
            time.sleep(_LOOK_S)
            status = run_status(store, run)
            live.update(live_table(status))
    for line in status_table(status).splitlines():
        if "report: " in line:
            print(line)


def live_table(status: dict[str, Any]) -> "RenderableType":
    """State, attempt, progress and place of every stage, for a terminal."""
    from rich import box
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    reason = f" ({status['reason']})" if status["reason"] else ""
    table = Table(title=Text(plain(f"run {status['run']}: {status['state']}{reason}")), box=box.SIMPLE, expand=True,
                  padding=(0, 1, 0, 0), pad_edge=False)  # fmt: skip
    for column in ("stage", "state", "attempt"):
        table.add_column(column, no_wrap=True)
    table.add_column("progress", width=_BAR)
    table.add_column("pace, place, last words", ratio=1)
    for stage in status["stages"]:
        progress = stage.get("progress")
        bar = ProgressBar(total=progress["total"], completed=progress["step"], width=_BAR) if progress else Text("")
        attempts = [*stage["attempts"], *([{"attempt": stage["attempt"]}] if "attempt" in stage else [])]
        number = str(attempts[-1]["attempt"]) if attempts else ""
        said = Text("\n").join(filter(None, (Text(stage_pace(stage)), Text(plain_notes(stage), style="dim"))))
        table.add_row(stage["stage"], Text(stage["state"], style=_COLOURS[stage["state"]]), number, bar, said)
    return table


def plain_notes(stage: dict[str, Any]) -> str:
    """What is to be said of a stage, a line each; of one that failed, the reason."""
    notes = stage_notes(stage) or ([stage["reason"]] if stage.get("reason") else [])
    return "\n".join(map(plain, notes))
