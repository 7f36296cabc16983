"""The ground truth on its way in: validated, then stored under one name a phase."""

import csv
import io
from pathlib import Path

from isc_jobs.spec.errors import DataError
from isc_jobs.stages.sharding import Plan
from isc_jobs.store.source import Source

_NAMES = {
    "phase1": ("ground_truth_phase1.csv", "public_ground_truth.csv"),
    "phase2": ("ground_truth_phase2.csv",),
}
_HEADER = ["query_id", "reference_id"]
Row = tuple[str, str]  # query id, reference id or ""


def read_ground_truth(source: Source, plan: Plan) -> dict[str, list[Row]]:
    """The rows of every phase that the source has a ground truth of; raises DataError for a wrong one."""
    truths = {}
    for phase, names in _NAMES.items():
        name = next((name for name in names if name in plan.tables), None)
        if name is not None:
            truths[phase] = parse_ground_truth(name, source.read(name))
            _check_ids(name, truths[phase], plan, f"query_{phase}")
    return truths


def write_ground_truth(truths: dict[str, list[Row]], lost: dict[str, set[str]], out: Path) -> None:
    """Write ground_truth_<phase>.csv without the rows that name a bad picture: ids ``lost`` by set."""
    for phase, rows in truths.items():
        queries, references = lost.get(f"query_{phase}", set()), lost.get("reference", set())
        kept = [row for row in rows if row[0] not in queries and row[1] not in references]
        with (out / f"ground_truth_{phase}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([_HEADER, *kept])


def parse_ground_truth(name: str, data: bytes) -> list[Row]:
    """All rows; raises DataError that names the line."""
    try:
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} is no UTF-8 CSV file: {error}") from error
    while lines and not lines[-1]:  # editors leave empty lines at the end
        lines.pop()
    if not lines or lines[0] != _HEADER:
        raise DataError(
            f"{name}: expected the header query_id,reference_id, found {','.join(lines[0]) if lines else ''!r}"
        )
    seen: dict[tuple[str, str], int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != 2 or not line[0]:
            raise DataError(f"{name} line {number}: expected query_id,reference_id, found {','.join(line)!r}")
        row = (line[0], line[1])
        if row in seen:
            raise DataError(f"{name} line {number} repeats line {seen[row]}: {','.join(row)}")
        seen[row] = number
    return list(seen)


def _check_ids(name: str, rows: list[Row], plan: Plan, queries: str) -> None:
    """Raises DataError for an id that is not listed; the sets' ids are passed by, never held."""
    for column, (set_, what) in enumerate(((queries, "query"), ("reference", "reference"))):
        unknown = {row[column] for row in rows if row[column]}.difference(plan.ids(set_))
        for number, row in enumerate(rows, start=2):
            if row[column] in unknown:
                count = sum(1 for _ in plan.ids(set_))
                raise DataError(
                    f"{name} line {number}: {what} {row[column]!r} is not among the {count} {what} pictures"
                )
