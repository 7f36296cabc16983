"""The live table shows what the status holds, and nothing that commands a terminal."""

import io
from typing import Any

from rich.console import Console

from isc_jobs.commands.watching import goes_on, live_table
from isc_jobs.controller.status import status_table

PROGRESS = {"step": 30, "total": 120, "rate": 2.0, "eta_s": 45.0, "line": "epoch 2 \x1b[2J of 6"}
STATUS: dict[str, Any] = {
    "run": "mine", "state": "running", "reason": "", "controlled": True, "store": "s3://runs",
    "stages": [
        {"stage": "download", "key": "0", "state": "finished", "seconds": 12.5, "summary": {}, "attempts": [
            {"attempt": 1, "kind": "finished", "reason": "", "exit_code": 0, "evidence": ""}]},
        {"stage": "train-v83", "key": "1", "state": "running", "attempt": 2, "progress": PROGRESS,
         "where": "pod isc-mine-train-v83-a2-master-0 on gpu-3, 8 GPUs", "waits": "", "attempts": [
            {"attempt": 1, "kind": "disruption", "reason": "pod p was evicted", "exit_code": 143, "evidence": ""}]},
        {"stage": "train-v86", "key": "2", "state": "waiting", "attempts": []},
    ],
}  # fmt: skip


def drawn(status: dict[str, Any], width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(live_table(status))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_stage_has_state_attempt_pace_place_and_last_words() -> None:
    shown = drawn(STATUS)
    [line] = [line for line in shown.splitlines() if "train-v83 " in line]
    assert "running" in line
    assert " 2 " in line
    assert "30/120  2.0/s  0m45s left" in line
    assert "pod isc-mine-train-v83-a2-master-0 on gpu-3, 8 GPUs" in shown
    assert "said: epoch 2 \\x1b[2J of 6" in shown
    assert "\x1b[2J" not in shown
    assert [word for word in ("download", "12.5 s", "train-v86", "waiting") if word not in shown] == []


def test_a_terminal_of_80_columns_shows_all_of_it() -> None:
    stages = [*STATUS["stages"], {"stage": "extract-untrained", "state": "left out", "attempts": []}]
    shown = drawn(STATUS | {"stages": stages}, 80)
    words = ("extract-untrained", "left out", "30/120  2.0/s  0m45s left", "isc-mine-train-v83-a2-master-0")
    assert [word for word in words if word not in shown] == []
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown


def test_why_a_stage_waits_is_shown_in_both_forms() -> None:
    stages = [STATUS["stages"][1] | {"waits": "Unschedulable: 0/1 nodes", "progress": None, "where": "pod p"}]
    status = STATUS | {"stages": stages}
    assert "waits: Unschedulable: 0/1 nodes" in drawn(status)
    table = status_table(status)
    assert "    waits: Unschedulable: 0/1 nodes\n" in table
    assert "    attempt 1: disruption: pod p was evicted" in table


def test_nobody_watches_a_run_that_no_controller_works_on() -> None:
    assert goes_on(STATUS)
    assert not goes_on(STATUS | {"controlled": False})
