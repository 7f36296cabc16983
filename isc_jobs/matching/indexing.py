"""isc-jobs index: pictures into an index on disk, and what it holds that is near others."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.Image import Image

from isc_jobs.matching.chunks import Chunks, Matrix
from isc_jobs.matching.describing import Answer, Job, describe
from isc_jobs.matching.index import Entry, Head, Index, Kind, add, build, check_new
from isc_jobs.matching.pictures import Picture, list_pictures
from isc_jobs.report.gallery import Example, Shown, gallery
from isc_jobs.report.page import Section, page
from isc_jobs.retrieval.submission import read_descriptors
from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.plain import counted
from isc_jobs.spec.weights import check_weights
from isc_jobs.store.artifacts import file_sha256
from isc_jobs.vision.decode import decode_rgb

_ROWS_AT_ONCE = 65_536
_SHOWN_BAD = 5


@dataclass(frozen=True, kw_only=True)
class Describing:
    """How pictures are described; None: the weights' own, or by the machine."""

    arch: str | None = None
    input_size: int | None = None
    batch: int | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Nearest:
    """The queries by path, and what is near them."""

    queries: list[str]
    rows: list["Near"]
    bad: list[tuple[str, str]]  # pictures that could not be used, with reasons


@dataclass(frozen=True)
class Near:
    """A row of an answer: one picture of the index near a query, the nearest with rank 1."""

    query: str
    rank: int
    score: float  # -(squared L2 distance)
    name: str


def build_index(folder: Path, kind: Kind, weights: Path, pictures: Path, how: Describing) -> Iterator[str]:
    """Index all pictures of a folder; lines that say what came of it. Interrupted, it goes on where it was."""
    check_weights(weights)
    sha256, listed = file_sha256(weights), list_pictures(pictures).pictures
    check_new(folder, kind, len(listed))  # before hours are spent on descriptors
    found = _Described(folder, weights, sha256, listed, how)
    yield from found.bad_lines()
    head = build(folder, kind, found.entries, found.blocks(), found.answer.model, (weights, sha256))
    found.forget()
    yield _said(folder, head)


def build_from_descriptors(
    folder: Path, kind: Kind, descriptors: Path, set_: str, weights: Path | None
) -> Iterator[str]:
    """Index a set of an HDF5 file of descriptors, under its ids; with the weights that made them it takes pictures."""
    if weights is not None:
        check_weights(weights)
    kept = None if weights is None else (weights, file_sha256(weights))
    read = read_descriptors(descriptors, set_)
    blocks = (read.rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(read.rows), _ROWS_AT_ONCE))
    yield _said(folder, build(folder, kind, [Entry(id_, "") for id_ in read.ids], blocks, {}, kept))


def add_pictures(folder: Path, pictures: Path, how: Describing) -> Iterator[str]:
    """Add those pictures of a folder that the index does not hold as they are; lines that say what came of it."""
    index = Index(folder)
    known = {entry.key for entry in index.entries}
    listed = list_pictures(pictures).pictures
    new = [picture for picture in listed if picture.key not in known]
    if len(new) < len(listed):
        yield f"{len(listed) - len(new):,} of {len(listed):,} pictures are in the index already"
    if not new:
        return
    found = _Described(folder, _weights(index), index.head.weights_sha256 or "", new, _as_made(index, how))
    yield from found.bad_lines()
    head = add(folder, found.entries, np.concatenate(list(found.blocks())))
    found.forget()
    yield _said(folder, head)


def query(folder: Path, pictures: Sequence[Path], k: int, threshold: float | None, how: Describing) -> Nearest:
    """The nearest of the index to each picture, or to each in a folder, by query and rank.

    Raises DataError if none of the pictures can be used.
    """
    index = Index(folder)
    wanted = [picture for path in pictures for picture in _pictures(path)]
    with tempfile.TemporaryDirectory(prefix="isc-jobs-query-") as work:
        sha256, how = index.head.weights_sha256 or "", _as_made(index, how)
        found = _Described(Path(work), _weights(index), sha256, wanted, how, quiet=True)
        rows = np.concatenate(list(found.blocks()))
    scores, places = index.search(rows, k)
    near = [
        Near(picture.name, rank, float(f"{score:.9g}"), index.entries[place].name)
        for picture, near, far in zip(found.entries, places, scores, strict=True)
        for rank, (place, score) in enumerate(zip(near, far, strict=True), start=1)
        if place >= 0 and (threshold is None or score >= threshold)
    ]
    return Nearest([picture.name for picture in found.entries], near, found.bad)


def answer_page(answer: Nearest) -> str:
    """The answer with pictures: a section a query, a card each that is near; pictures that have gone are left out."""
    sections = []
    for query_ in answer.queries:
        cards = []
        for row in answer.rows:
            if row.query == query_ and Path(row.name).is_file():
                said = f"rank {row.rank}, score {round(row.score, 3) + 0.0:.3f}".replace("-", "\N{MINUS SIGN}")
                cards.append(Example((Shown("query", query_, "query"), Shown("reference", row.name, "found")), said))
        html = gallery(cards, _image) or "<p>Nothing that is near enough can be shown.</p>"
        sections.append(Section(Path(query_).name, "", html))
    return page(
        "Nearest in the index",
        [f"{counted(len(answer.queries), 'query', 'queries')}."],
        [],
        sections,
    )


def _image(_kind: str, name: str) -> Image:
    image = decode_rgb(Path(name).read_bytes(), reduce_to=160)
    image.thumbnail((320, 320))
    return image


class _Described:
    """Pictures with descriptors, which lie in the index's folder until they are in it."""

    def __init__(
        self, folder: Path, weights: Path, sha256: str, pictures: Sequence[Picture], how: Describing,
        *, quiet: bool = False,
    ) -> None:  # fmt: skip
        self._work = folder / "work"
        self.answer: Answer = describe(Job(
            weights=str(weights), weights_sha256=sha256, arch=how.arch, input_size=how.input_size,
            work=str(self._work), sets={"pictures": [(picture.key, picture.path) for picture in pictures]}, edits=[],
            batch=how.batch, workers=how.workers, parent=os.getpid(), quiet=quiet,
        ))  # fmt: skip
        self._chunks = Chunks(Path(self.answer.folder))
        reasons = self._chunks.bad | self.answer.unread
        good = [picture for picture in pictures if self._chunks.has_row(picture.key)]
        self.bad = [(p.path, reasons[p.key]) for p in pictures if not self._chunks.has_row(p.key)]
        if not good:
            raise DataError(f"none of {len(self.bad)} pictures can be used; the first is {': '.join(self.bad[0])}")
        self.entries = [Entry(picture.path, picture.key) for picture in good]

    def blocks(self) -> Iterator[Matrix]:
        """The descriptors, some at a time, in the order of the entries."""
        for start in range(0, len(self.entries), _ROWS_AT_ONCE):
            keys = [entry.key for entry in self.entries[start : start + _ROWS_AT_ONCE]]
            rows = np.empty((len(keys), self.answer.model["dimensions"]), np.float32)
            self._chunks.gather(keys, rows)
            yield rows

    def bad_lines(self) -> Iterator[str]:
        if self.bad:
            shown = "; ".join(f"{name}: {reason}" for name, reason in self.bad[:_SHOWN_BAD])
            yield f"{counted(len(self.bad), 'picture', 'pictures')} could not be used: {shown}" + (
                "; …" if len(self.bad) > _SHOWN_BAD else ""
            )

    def forget(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)


def _pictures(path: Path) -> list[Picture]:
    if path.is_dir():
        return list_pictures(path).pictures
    try:
        found = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    absolute = str(path.resolve())
    return [Picture(absolute, absolute, found.st_size, found.st_mtime_ns)]


def _weights(index: Index) -> Path:
    if index.head.weights is None:
        raise UsageError(
            f"index {index.folder} was built of descriptors and holds no weights, so it takes no pictures: "
            "build it with --descriptors and the --weights that made them"
        )
    path = index.folder / Path(index.head.weights).name
    if not path.is_file() or file_sha256(path) != index.head.weights_sha256:
        raise DataError(f"{path} is not the file that the index was built with: copy that there, or build it again")
    return path


def _as_made(index: Index, how: Describing) -> Describing:
    """As the index's own pictures were described."""
    model = index.head.model
    return Describing(arch=model.get("arch"), input_size=model.get("input_size"), batch=how.batch, workers=how.workers)


def _said(folder: Path, head: Head) -> str:
    bytes_ = sum(path.stat().st_size for path in folder.glob(f"*-{head.generation}.*"))
    size = f"{bytes_ / 1e6:,.0f} MB" if bytes_ >= 1e7 else f"{bytes_ / 1e3:,.0f} kB"
    found = "" if head.recall is None else f", {head.recall:.1%} of the nearest are found with {head.probes} lists"
    return f"{folder}: {counted(head.count, 'picture', 'pictures')}, {head.kind}, {size}{found}"
