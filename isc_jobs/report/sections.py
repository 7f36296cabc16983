"""The report's figures and tables of trainings, data, times and versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from isc_jobs.report.charts import Chart, Line, draw, smoothed
from isc_jobs.report.page import figure, table
from isc_jobs.report.text import escape
from isc_jobs.store.artifacts import Commit

_SHOWN_BAD = 50
_SETS = {
    "train": "training pictures", "reference": "references",
    "query_phase1": "queries, phase 1", "query_phase2": "queries, phase 2",
}  # fmt: skip


def training_figure(name: str, history: Sequence[Mapping[str, str]], colour: int) -> str:
    """Loss with its two parts, and learning rate, over steps; ``history`` is rows of history.csv."""

    def column(key: str) -> list[tuple[float, float]]:
        return [(float(row["step"]), float(row[key])) for row in history]

    loss = draw(
        Chart(title=f"Loss of {name}", x_name="step", y_name="loss"),
        [
            Line("loss, each step", column("loss"), colour, "faint"),
            Line("positive part", smoothed(column("positive_loss")), 0, "dashed"),
            Line("negative part", smoothed(column("negative_loss")), 0, "dotted"),
            Line("loss, smoothed", smoothed(column("loss")), colour),
        ],
    )
    rate = draw(
        Chart(title=f"Learning rate of {name}", x_name="step", y_name="learning rate", height=140),
        [Line("learning rate", column("lr"), colour)],
    )
    return figure(name, loss + rate)


def data_tables(manifest: Mapping[str, Any], bad: Sequence[Mapping[str, str]], copies: int | None) -> str:
    """Counts of the sets and, folded away, the pictures that could not be used (rows key, reason)."""
    counts = [(label, f"{manifest['sets'][name]['count']:,}") for name, label in _SETS.items()
              if name in manifest["sets"]]  # fmt: skip
    counts.append(("bad pictures, left out", f"{manifest['bad']:,}"))
    if copies is not None:
        counts.append(("true pairs in the ground truth", f"{copies:,}"))
    html = table("Pictures", ("set", "count"), counts)
    if bad:
        rows = [(row["key"], row["reason"]) for row in bad[:_SHOWN_BAD]]
        shown = f"the first {len(rows)} of {len(bad)}" if len(bad) > len(rows) else "all"
        inner = table(f"Bad pictures, {shown}", ("file", "reason"), rows, words=True)
        html += f"<details><summary>{escape(f'{len(bad):,} bad pictures')}</summary>{inner}</details>"
    return f'<div class="sides"><div>{html}</div></div>'


def time_table(commits: Sequence[Commit]) -> str:
    """Stages with duration, attempt and end, and the sum."""
    rows = [(c.stage, duration(c.seconds), str(c.attempt), c.created.replace("T", " ")[5:16]) for c in commits]
    rows.append(("all of these", duration(sum(commit.seconds for commit in commits)), "", ""))
    return table("Time of each stage", ("stage", "time", "attempt", "finished (UTC)"), rows, marked=len(rows) - 1)


def version_table(commits: Sequence[Commit]) -> str:
    """Versions of packages; all of them where stages differ."""
    found: dict[str, list[str]] = {}
    for commit in commits:
        for name, version in commit.provenance.items():
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return table("Versions", ("package", "version"), [(name, ", ".join(found[name])) for name in sorted(found)])


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
