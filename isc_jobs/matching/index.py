"""Descriptors on disk in faiss's own files: exact, or inverted lists with product quantisation and exact re-ranking.

A folder holds ``index.json``, which says which other files are the index and is replaced last: a crash leaves the old
index or the new.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from isc_jobs.retrieval.rows import Matrix
from isc_jobs.spec.documents import parse_json
from isc_jobs.spec.errors import DataError, TemporaryError, UsageError
from isc_jobs.spec.stage import first_problem

Kind = Literal["exact", "ivfpq"]
LEAST_IVFPQ = 10_000  # fewer are searched exactly in a moment
_FORMAT = 1
_HEAD = "index.json"
_BLOCK = 65_536
_GROUP = 2  # dimensions that share four bits of a row's code: 64 bytes of 256 dimensions
_CANDIDATES = 100  # that are ranked exactly, at least
_TRAINED = 64  # rows a list, from which lists and codes are learnt
_MEASURED, _NEAREST = 500, 10  # queries and neighbours by which recall is measured
_WANTED = 0.98  # of the nearest rows are found; lists are looked into until they are


class Head(BaseModel):
    """What index.json says."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int
    kind: Kind
    count: int
    dimensions: int
    generation: int
    weights: str | None  # file in the folder, None for one of given descriptors
    weights_sha256: str | None
    model: dict[str, Any]
    probes: int  # lists looked into for a query
    recall: float | None  # measured: how many of the nearest rows are found; None of an exact one


@dataclass(frozen=True)
class Entry:
    """A picture of the index: its name, and the key that changes with its file (empty: of given descriptors)."""

    name: str
    key: str


class Index:
    """An index as it was when it was opened."""

    def __init__(self, folder: Path) -> None:
        """Open; rows stay on disk. Raises UsageError for no index, DataError for a damaged one."""
        self.folder = folder
        self.head = read_head(folder)
        try:
            with _at(folder, "names", self.head.generation).open(encoding="utf-8", errors="surrogateescape") as file:
                self.entries = [Entry(*json.loads(line)) for line in file]
            self._rows: Any = faiss.read_index(str(_at(folder, "rows", self.head.generation)), faiss.IO_FLAG_MMAP_IFC)
            self._lists: Any = None
            if self.head.kind == "ivfpq":
                self._lists = faiss.read_index(str(_at(folder, "lists", self.head.generation)))
                self._lists.nprobe = self.head.probes
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise DataError(f"index {folder} is damaged ({str(error)[:200]}): build it again") from error
        counts = {len(self.entries), self._rows.ntotal, self.head.count, *([self._lists.ntotal] if self._lists else [])}
        if len(counts) > 1 or self._rows.d != self.head.dimensions:
            raise DataError(f"index {folder} is damaged: its files hold {sorted(counts)} rows: build it again")

    def search(self, queries: Matrix, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Scores (n, k), -(squared L2 distance), best first, and positions (n, k); -1 where there are fewer rows."""
        if queries.shape[1:] != (self.head.dimensions,):
            raise UsageError(f"queries have {queries.shape[1:]} dimensions, the index has {self.head.dimensions}")
        index = self._lists or self._rows
        wanted = k if self._lists is None else max(_CANDIDATES, 10 * k)
        _, positions = index.search(np.ascontiguousarray(queries, np.float32), min(wanted, max(1, self.head.count)))
        return _ranked(self._rows, queries, positions, k)

    def rows(self) -> Iterator[Matrix]:
        """All rows, some at a time."""
        for start in range(0, self.head.count, _BLOCK):
            yield self._rows.reconstruct_n(start, min(_BLOCK, self.head.count - start))


def check_new(folder: Path, kind: Kind, count: int) -> None:
    """Raises UsageError if there is an index, or for too few rows."""
    if (folder / _HEAD).exists():
        raise UsageError(f"{folder} is an index already: add to it, or build another folder")
    if kind == "ivfpq" and count < LEAST_IVFPQ:
        raise UsageError(f"ivfpq needs {LEAST_IVFPQ:,} pictures, here are {count:,}: build --kind exact")


def build(
    folder: Path, kind: Kind, entries: Sequence[Entry], rows: Iterator[Matrix], model: dict[str, Any],
    weights: tuple[Path, str] | None,
) -> Head:  # fmt: skip
    """Write a new index of rows (n, d), a block at a time; with a copy of the weights (file, SHA-256) that made them.

    Raises UsageError as ``check_new`` does.
    """
    check_new(folder, kind, len(entries))
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        name = None
        if weights is not None:
            name = "weights" + "".join(weights[0].suffixes[-2:])
            shutil.copyfile(weights[0], folder / name)
        return _write(folder, kind, entries, rows, generation=1, model=model, weights=name,
                      weights_sha256=weights[1] if weights else None)  # fmt: skip


def add(folder: Path, entries: Sequence[Entry], rows: Matrix) -> Head:
    """Write the index with more rows (n, d); the old one serves until then."""
    with _alone(folder):
        index = Index(folder)
        head = index.head

        def all_rows() -> Iterator[Matrix]:
            yield from index.rows()
            yield rows

        made = _write(folder, head.kind, [*index.entries, *entries], all_rows(), generation=head.generation + 1,
                      model=head.model, weights=head.weights, weights_sha256=head.weights_sha256)  # fmt: skip
        for what in ("names", "rows", "lists"):
            _at(folder, what, head.generation).unlink(missing_ok=True)
        return made


def _write(
    folder: Path, kind: Kind, entries: Sequence[Entry], rows: Iterator[Matrix], *, generation: int, **facts: Any
) -> Head:
    flat: Any = None
    for block in rows:
        flat = flat or faiss.IndexFlatL2(block.shape[1])
        flat.add(np.ascontiguousarray(block, np.float32))
    assert flat is not None
    assert flat.ntotal == len(entries)
    lists, probes, recall = _learn(flat) if kind == "ivfpq" else (None, 0, None)
    with _at(folder, "names", generation).open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(json.dumps([entry.name, entry.key]) + "\n" for entry in entries)
        _flush(file.fileno())
    for what, index in (("rows", flat), ("lists", lists)):
        if index is not None:
            path = _at(folder, what, generation)
            faiss.write_index(index, str(path))
            with path.open("rb") as written:
                _flush(written.fileno())
    head = Head(format=_FORMAT, kind=kind, count=flat.ntotal, dimensions=flat.d, generation=generation, probes=probes,
                recall=recall, **facts)  # fmt: skip
    temporary = folder / f".{_HEAD}"
    temporary.write_text(head.model_dump_json(indent=1), "utf-8")
    temporary.replace(folder / _HEAD)
    return head


def _learn(flat: Any) -> tuple[Any, int, float]:
    """Inverted lists of codes, how many lists to look into, and which share of the nearest rows that finds."""
    lists = 1 << round(np.log2(4 * np.sqrt(flat.ntotal)))
    index: Any = faiss.index_factory(flat.d, f"IVF{lists},PQ{flat.d // _GROUP}x4fs")
    chosen = np.random.default_rng(0).permutation(flat.ntotal)
    index.train(_taken(flat, np.sort(chosen[: _TRAINED * lists])))
    for start in range(0, flat.ntotal, _BLOCK):
        index.add(flat.reconstruct_n(start, min(_BLOCK, flat.ntotal - start)))
    queries = _taken(flat, np.sort(chosen[:_MEASURED]))
    _, exact = flat.search(queries, _NEAREST)
    index.nprobe, recall = 1, 0.0
    while True:
        _, found = index.search(queries, _CANDIDATES)
        recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))
        if recall >= _WANTED or index.nprobe >= lists:
            return index, int(index.nprobe), recall
        index.nprobe *= 2


def _taken(flat: Any, places: NDArray[np.int64]) -> Matrix:
    taken: Matrix = flat.reconstruct_batch(places)
    return taken


def _ranked(
    flat: Any, queries: Matrix, positions: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # fmt: skip
    """The k best of the candidates by exact distance, equal ones by position."""
    scores = np.full((len(queries), k), -np.inf)
    places = np.full((len(queries), k), -1, np.int64)
    for number, (query, candidates) in enumerate(zip(queries, positions, strict=True)):
        there = candidates[candidates >= 0]
        differences = _taken(flat, there).astype(np.float64) - query
        found = -np.einsum("nd,nd->n", differences, differences)
        order = np.lexsort((there, -found))[:k]
        scores[number, : len(order)], places[number, : len(order)] = found[order], there[order]
    return scores, places


def read_head(folder: Path) -> Head:
    """What index.json says; raises UsageError for no index or another format, DataError for a damaged one."""
    try:
        data = (folder / _HEAD).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{folder} is no index: make one with isc-jobs index build") from error
    parsed = parse_json(data, str(folder / _HEAD))
    if isinstance(parsed, dict) and parsed.get("format") != _FORMAT:
        raise UsageError(
            f"index {folder} has format {parsed.get('format')!r}, this version reads {_FORMAT}: use the isc-jobs that "
            "made it, or build it again"
        )
    try:
        return Head.model_validate(parsed)
    except ValidationError as error:
        raise DataError(f"{folder / _HEAD} is damaged ({first_problem(error)}): build the index again") from error


def _at(folder: Path, what: str, generation: int) -> Path:
    return folder / f"{what}-{generation}{'.jsonl' if what == 'names' else '.faiss'}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else writes meanwhile; raises TemporaryError if somebody does."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TemporaryError(f"index {folder} is being written by another process: try again later") from error
        yield


def _flush(descriptor: int) -> None:
    os.fsync(descriptor)
