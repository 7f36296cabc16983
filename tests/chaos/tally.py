"""What became of faults: a row a try, written where CHAOS_TALLY says, and added up in a table of the documentation."""

import json
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

HEADING = "| fault | tried | results lost | repeated | time to recover, s: median, most |"


def record(fault: str, *, lost: int, repeated: int, seconds: float) -> None:
    """One try: results that were lost or made twice, seconds until what was to be done was done."""
    row = {"fault": fault, "lost": lost, "repeated": repeated, "seconds": seconds}
    if "CHAOS_TALLY" in os.environ:
        with Path(os.environ["CHAOS_TALLY"]).open("a") as file:
            file.write(json.dumps(row) + "\n")


def summed(rows: list[dict[str, Any]]) -> dict[str, str]:
    """A line of the table for each fault."""
    faults: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        faults[row["fault"]].append(row)
    lines = {}
    for fault, found in faults.items():
        seconds = [row["seconds"] for row in found]
        lost, repeated = (sum(row[name] for row in found) for name in ("lost", "repeated"))
        took = f"{statistics.median(seconds):.1f}, {max(seconds):.1f}"
        lines[fault] = f"| {fault} | {len(found)} | {lost} | {repeated} | {took} |"
    return lines


def renewed(page: str, rows: list[dict[str, Any]]) -> str:
    """The page with the faults' lines in its table: new ones, and those of faults that were not tried this time."""
    before, heading, rest = page.partition(HEADING)
    assert heading, f"no table that begins with {HEADING}"
    rule, *lines = rest.lstrip("\n").splitlines(keepends=True)
    count = next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))
    kept = {line.split("|")[1].strip(): line.strip() for line in lines[:count]}
    shown = kept | summed(rows)
    return "".join([before, heading, "\n", rule, *(f"{line}\n" for _, line in sorted(shown.items())), *lines[count:]])


def main() -> None:
    """``python tally.py TALLY PAGE``: bring what was recorded into the page's table."""
    tally, page = map(Path, sys.argv[1:3])
    page.write_text(renewed(page.read_text(), [json.loads(line) for line in tally.read_text().splitlines()]))


if __name__ == "__main__":
    main()
