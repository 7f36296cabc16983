"""The ground truth on its way in: validated, then stored under one name a phase."""

import csv
import io
from pathlib import Path, PurePosixPath

from isc_jobs.spec.errors import DataError
from isc_jobs.store.source import Source

_NAMES = {
    "phase1": ("ground_truth_phase1.csv", "public_ground_truth.csv"),
    "phase2": ("ground_truth_phase2.csv",),
}
_HEADER = ["query_id", "reference_id"]


def copy_ground_truth(source: Source, ids: dict[str, set[str]], bad: set[str], out: Path) -> None:
    """Write ground_truth_<phase>.csv for every phase that the source has; raises DataError for a wrong one.

    Rows that name a bad picture are left out; an id that never was there is an error.
    """
    there = {info.key for info in source.list() if "/" not in info.key}
    lost = {PurePosixPath(key).stem for key in bad}
    for phase, names in _NAMES.items():
        name = next((name for name in names if name in there), None)
        if name is None:
            continue
        rows = parse_ground_truth(name, source.read(name))
        _check_ids(name, rows, ids.get(f"query_{phase}", set()) | lost, ids.get("reference", set()) | lost)
        kept = [row for row in rows if not lost & set(row)]
        with (out / f"ground_truth_{phase}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([_HEADER, *kept])


def parse_ground_truth(name: str, data: bytes) -> list[tuple[str, str]]:
    """(query id, reference id or "") of every row; raises DataError that names the line."""
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


def _check_ids(name: str, rows: list[tuple[str, str]], queries: set[str], references: set[str]) -> None:
    for number, (query, reference) in enumerate(rows, start=2):
        if query not in queries:
            raise DataError(f"{name} line {number}: query {query!r} is not among the {len(queries)} query pictures")
        if reference and reference not in references:
            raise DataError(
                f"{name} line {number}: reference {reference!r} is not among the {len(references)} references"
            )
