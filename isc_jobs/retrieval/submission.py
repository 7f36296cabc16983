"""Submission files: descriptors as HDF5, matches as CSV, and the ground truth beside them."""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from isc_jobs.retrieval.rows import Matrix, check_finite
from isc_jobs.retrieval.search import Neighbours
from isc_jobs.spec.errors import DataError, UsageError

MAX_ROWS = 500_000
MAX_DIMENSIONS = 256
_SMALL, _MOST_SHRUNK = 64 << 20, 16  # bytes that a dataset may always have, and how many times as many as its file
_AT_ONCE, _LONGEST_ID = 256, 1024
_SHOWN = 10  # of what a wrong file holds
_HEADER = ["query_id", "reference_id", "score"]
_CALLED = "copy"  # what isc-jobs match says of each pair beside its score, which nothing here reads


@dataclass(frozen=True)
class Descriptors:
    """Rows (n, d) float32 and their ids, sorted by id."""

    ids: list[str]
    rows: Matrix


def read_descriptors(path: Path, name: str) -> Descriptors:
    """Dataset ``name`` and its ids; raises UsageError or DataError that says what is wrong."""
    try:
        with h5py.File(path, "r") as file:
            found, named = _dataset(file, path, name), _dataset(file, path, f"{name}_ids")
            if found.dtype != np.float32 or found.ndim != 2:
                raise DataError(f"{path.name}: {name} is {found.dtype} {found.shape}, expected float32 (n, d)")
            if named.dtype.kind not in "SO" or named.ndim != 1:
                raise DataError(f"{path.name}: {name}_ids is {named.dtype} {named.shape}, expected strings (n,)")
            rows, ids = np.asarray(found), list(_ids(path, named))
    except FileNotFoundError as error:
        raise UsageError(f"descriptors {path}: no such file") from error
    except (OSError, TypeError, ValueError, LookupError, RuntimeError, MemoryError) as error:
        raise DataError(f"descriptors {path} are no HDF5 descriptor file: {error}") from error
    _check_descriptors(f"{path.name}: {name}", ids, rows)
    return Descriptors(ids, rows)


def _dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """A dataset whose data are in the file itself, and not many times as large; raises DataError."""
    link = file.get(name, getlink=True) if name in file.keys() else None  # noqa: SIM118 - it is no mapping
    if link is None:
        held = ", ".join(map(str, islice(file, _SHOWN)))
        raise DataError(f"{path.name} holds {held or 'nothing'}: expected {name} and {name}_ids")
    found = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise DataError(f"{path.name}: {name} is no dataset of this file alone: links and outside data are not read")
    most = max(_SMALL, _MOST_SHRUNK * path.stat().st_size)
    if found.shape is None or found.nbytes > most:
        raise DataError(
            f"{path.name}: {name} claims {found.nbytes} bytes of a file of {path.stat().st_size}: it is refused"
        )
    return found


def _ids(path: Path, named: h5py.Dataset) -> Iterator[str]:
    """Ids a part at a time: in a file many strings of any length may be one."""
    for start in range(0, len(named), _AT_ONCE):
        for id_ in named[start : start + _AT_ONCE]:
            if len(id_) > _LONGEST_ID:
                raise DataError(f"{path.name}: an id of {len(id_)} characters, at most {_LONGEST_ID} are read")
            yield bytes(id_).decode()


def _check_descriptors(name: str, ids: list[str], rows: NDArray[Any]) -> None:
    if rows.ndim != 2 or len(rows) != len(ids) or rows.dtype != np.float32:
        raise DataError(f"{name} is {rows.dtype} {rows.shape} with {len(ids)} ids, expected float32 (n, d)")
    if len(set(ids)) != len(ids):
        first = next(id_ for id_, count in Counter(ids).items() if count > 1)
        raise DataError(f"{name}_ids holds {len(ids) - len(set(ids))} ids again, the first is {first!r}")
    check_finite(name, rows)


def write_descriptors(path: Path, queries: Descriptors, references: Descriptors) -> None:
    """Write ``query``, ``reference`` and their ids (S6, S7, wider for longer ids), sorted by id.

    Raises DataError for what ``read_descriptors`` would refuse.
    """
    with h5py.File(path, "w") as file:
        for name, width, part in (("query", 6, queries), ("reference", 7, references)):
            _check_descriptors(f"{path.name}: {name}", part.ids, part.rows)
            order = sorted(range(len(part.ids)), key=part.ids.__getitem__)
            file[name] = part.rows[order]
            ids = [part.ids[index].encode() for index in order]
            file[f"{name}_ids"] = np.array(ids, dtype=f"S{max(width, *map(len, ids), 0)}")


@dataclass(frozen=True)
class Matches:
    """Claimed pairs, with scores, larger being surer."""

    queries: list[str]
    references: list[str]
    scores: NDArray[np.float64]


def matches_of(queries: list[str], references: list[str], found: Neighbours) -> Matches:
    """Every query's neighbours as claimed pairs: the ``MAX_ROWS`` surest if there are more, the first among equals."""
    kept = np.sort(np.argsort(-found.scores, axis=None, kind="stable")[:MAX_ROWS])
    width = found.scores.shape[1]
    return Matches(
        [queries[place // width] for place in kept.tolist()],
        [references[place] for place in found.positions.ravel()[kept].tolist()],
        found.scores.ravel()[kept].astype(np.float64),
    )


def write_matches(path: Path, queries: list[str], references: list[str], found: Neighbours) -> None:
    """Write ``matches_of`` as query_id,reference_id,score, with all digits of the score: reading it loses nothing."""
    matches = matches_of(queries, references, found)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADER)
        writer.writerows(zip(matches.queries, matches.references, matches.scores.tolist(), strict=True))


def read_matches(path: Path) -> Matches:
    """Read and validate a matching file; raises UsageError or DataError that names the line."""
    rows = _read_csv(path, _HEADER, MAX_ROWS, further=_CALLED)
    if not rows:
        raise DataError(f"{path.name} has a header and no rows: nothing can be scored")
    seen: set[tuple[str, str]] = set()
    scores = np.empty(len(rows))
    for number, (query, reference, score) in enumerate(rows):
        if (query, reference) in seen:
            raise DataError(f"{path.name} line {number + 2}: the pair {query},{reference} is there twice")
        seen.add((query, reference))
        try:
            scores[number] = float(score)
        except ValueError as error:
            raise DataError(f"{path.name} line {number + 2}: score {score!r} is no number") from error
        if not np.isfinite(scores[number]):
            raise DataError(f"{path.name} line {number + 2}: score {score!r} is not finite")
    return Matches([row[0] for row in rows], [row[1] for row in rows], scores)


@dataclass(frozen=True)
class GroundTruth:
    """Queries that count, and the true pairs."""

    queries: frozenset[str]
    pairs: frozenset[tuple[str, str]]


def read_ground_truth(path: Path) -> GroundTruth:
    """query_id,reference_id, an empty reference meaning none; raises DataError for duplicate rows or no pair."""
    rows = [(row[0], row[1]) for row in _read_csv(path, _HEADER[:2])]
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(rows, start=2):
        if row in seen:
            raise DataError(f"{path.name} line {number}: {','.join(row)} is there twice")
        seen.add(row)
    pairs = frozenset(row for row in rows if row[1])
    if not pairs:
        raise DataError(f"{path.name} names no matching pair: nothing can be scored")
    return GroundTruth(frozenset(row[0] for row in rows), pairs)


def _read_csv(path: Path, header: list[str], most: int | None = None, further: str | None = None) -> list[list[str]]:
    """The rows below the header, ``most`` at most; without a last column of the name ``further``, if there is one."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = list(islice(reader, None if most is None else most + 2))
            more = sum(1 for _ in reader)  # counted, not kept
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no UTF-8 CSV file: {error}") from error
    while rows and not rows[-1]:  # editors leave empty lines at the end
        rows.pop()
    wider = bool(rows) and rows[0] == [*header, further]
    if not rows or not (wider or rows[0] == header):
        raise DataError(
            f"{path.name}: expected the header {','.join(header)}, found {','.join(rows[0]) if rows else ''!r}"
        )
    if most is not None and len(rows) > most + 1:
        raise DataError(f"{path.name} has {len(rows) - 1 + more} rows, at most {most} are allowed")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]) or not row[0]:
            raise DataError(f"{path.name} line {number}: expected {','.join(rows[0])}, found {','.join(row)!r}")
    return [row[: len(header)] for row in rows[1:]] if wider else rows[1:]
