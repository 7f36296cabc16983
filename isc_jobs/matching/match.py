"""isc-jobs match: describe the pictures of folders, search, set the threshold, write what is found."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isc_jobs.matching.calibration import Sampled, choose_sample
from isc_jobs.matching.chunks import Chunks, Matrix
from isc_jobs.matching.describing import Answer, Job, describe
from isc_jobs.matching.found import Found, Threshold, write_found
from isc_jobs.matching.pictures import Listing, Picture, list_pictures
from isc_jobs.matching.search import nearest
from isc_jobs.retrieval.metrics import Scores, score_matches
from isc_jobs.retrieval.submission import GroundTruth, Matches, read_ground_truth
from isc_jobs.retrieval.subtraction import smooth, subtract_negatives
from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Matching, Postprocess
from isc_jobs.spec.weights import check_weights
from isc_jobs.store.artifacts import file_sha256
from isc_jobs.store.progress import Progress

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for; None: not given."""

    weights: Path
    references: Path
    queries: Path
    out: Path
    ground_truth: Path | None = None
    negatives: Path | None = None
    work: Path | None = None
    top_k: int | None = None
    threshold: float | None = None
    input_size: int | None = None
    arch: str | None = None
    batch: int | None = None
    workers: int | None = None


@dataclass(frozen=True)
class _Set:
    """Described pictures and their rows (n, d), which lie in a file without a name."""

    pictures: list[Picture]
    rows: Matrix


def find_copies(request: Request) -> Iterator[str]:
    """Write the nearest references of every query; lines that say what came out.

    Raises UsageError and DataError; what is described before an error or interruption is kept.
    """
    settings = load_settings("isc21")
    digest = _check(request)
    listings = _list(request)
    truth = read_ground_truth(request.ground_truth) if request.ground_truth else None
    _check_truth(truth, listings)
    estimated = truth is None and request.threshold is None
    sample = _sample(listings["references"].pictures, settings.matching) if estimated else []
    work = request.work or request.out.with_suffix(".work")
    answer = describe(_job(request, digest, work, listings, sample))
    search = _Search(work, answer, listings)
    if request.negatives:
        search.subtract(settings.postprocess)
    matches = search.copies(request.top_k or settings.matching.top_k)
    curve = score_matches(matches, truth) if truth else search.estimate(sample) if sample else None
    by = "ground truth" if truth else f"edited copies of {len(sample)} references" if sample else "option"
    found = Found(
        matches=matches, curve=curve, threshold=_threshold(request, curve, by, settings.matching),
        pictures={name: {picture.id: picture for picture in listing.pictures} for name, listing in listings.items()},
        bad=search.bad, model=answer.model | {"weights_sha256": digest, "negatives": request.negatives is not None},
    )  # fmt: skip
    yield from write_found(request.out, found, settings.matching)


def _check(request: Request) -> str:
    """The weights' SHA-256; raises UsageError for what cannot be read or written."""
    if request.out.suffix != ".csv":
        raise UsageError(f"--out {request.out}: expected a name that ends in .csv")
    if not request.out.parent.is_dir():
        raise UsageError(f"--out {request.out}: {request.out.parent} is not a folder: make it first")
    check_weights(request.weights)
    try:
        return file_sha256(request.weights)
    except OSError as error:
        raise UsageError(f"weights {request.weights}: {error.strerror}") from error


def _list(request: Request) -> dict[str, Listing]:
    folders = {"references": request.references, "queries": request.queries}
    if request.negatives:
        folders["negatives"] = request.negatives
    return {name: list_pictures(folder) for name, folder in folders.items()}


def _check_truth(truth: GroundTruth | None, listings: dict[str, Listing]) -> None:
    """Raises DataError for ids that no file has; bad pictures do count, as missed."""
    if truth is None:
        return
    named = {"queries": truth.queries, "references": frozenset(reference for _, reference in truth.pairs)}
    for kind, ids in named.items():
        unknown = sorted(ids.difference(picture.id for picture in listings[kind].pictures))
        if unknown:
            raise DataError(
                f"the ground truth names {len(unknown)} {kind} that are no file: {', '.join(unknown[:3])}; ids are "
                "paths within the folder, with suffix"
            )


def _sample(references: list[Picture], settings: Matching) -> list[Sampled]:
    if len(references) < settings.least_sample:
        raise UsageError(
            f"{len(references)} references are too few to estimate from which score on a pair is a copy "
            f"({settings.least_sample} are needed): give --threshold or --ground-truth"
        )
    return choose_sample(references, settings.sample)


def _job(request: Request, digest: str, work: Path, listings: dict[str, Listing], sample: list[Sampled]) -> Job:
    return Job(
        weights=str(request.weights), weights_sha256=digest, arch=request.arch, input_size=request.input_size,
        work=str(work), batch=request.batch, workers=request.workers, parent=os.getpid(),
        sets={name: [(p.key, p.path) for p in listing.pictures] for name, listing in listings.items()},
        edits=[(one.key, one.picture.path, one.other.path, one.seed) for one in sample],
    )  # fmt: skip


def _threshold(request: Request, curve: Scores | None, by: str, settings: Matching) -> Threshold:
    place = curve.lowest(settings.precision) if curve else None
    if request.threshold is not None:
        return Threshold(request.threshold, "option")
    if curve is None or place is None:
        return Threshold(None, by)
    precision, recall = float(curve.precision[place]), float(curve.recall[place])
    return Threshold(float(curve.scores[place]), by, precision, recall, place + 1, curve.true_pairs)


class _Search:
    """Rows of all sets, and what is found among them."""

    def __init__(self, work: Path, answer: Answer, listings: dict[str, Listing]) -> None:
        """Gather the rows into files; raises DataError for a set of bad pictures only."""
        self._work, self._width = work, int(answer.model["dimensions"])
        self._chunks = Chunks(Path(answer.folder))
        self.bad: list[tuple[str, str, str]] = []  # set, id, reason
        reasons = self._chunks.bad | answer.unread
        for name, listing in listings.items():
            self.bad += [(name, id_, reason) for id_, reason in listing.unread]
            self.bad += [(name, p.id, reasons[p.key]) for p in listing.pictures if not self._chunks.has_row(p.key)]
        self._sets = {name: self._set(name, listing.pictures) for name, listing in listings.items()}
        self._negatives: Matrix | None = None

    def _set(self, name: str, pictures: list[Picture]) -> _Set:
        good = [picture for picture in pictures if self._chunks.has_row(picture.key)]
        if not good:
            bad = [f"{id_}: {reason}" for set_, id_, reason in self.bad if set_ == name]
            raise DataError(f"none of {len(bad)} {name} can be used; the first is {bad[0]}")
        return _Set(good, self._rows([picture.key for picture in good]))

    def _rows(self, keys: list[str]) -> Matrix:
        with tempfile.TemporaryFile(dir=self._work) as file:
            rows = np.memmap(file, np.float32, "w+", shape=(len(keys), self._width))
        self._chunks.gather(keys, rows)
        return rows

    def subtract(self, settings: Postprocess) -> None:
        """Negative embedding subtraction with the set of negatives, in place."""
        self._negatives = smooth(np.array(self._sets["negatives"].rows), settings.dba_neighbours, settings.dba_power)
        self._settings = settings
        for name in ("references", "queries"):
            self._subtract_from(self._sets[name].rows)

    def _subtract_from(self, rows: Matrix) -> None:
        if self._negatives is None:
            return
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            neighbours, beta = self._settings.negative_neighbours, self._settings.beta
            rows[part] = subtract_negatives(np.array(rows[part]), self._negatives, neighbours, beta)

    def copies(self, k: int) -> Matches:
        """The k nearest references of every query, by query id and then score; no picture is its own copy."""
        queries, references = self._sets["queries"], self._sets["references"]
        places = {picture.path: place for place, picture in enumerate(references.pictures)}
        own = np.array([places.get(picture.path, -1) for picture in queries.pictures], np.int64)
        progress = Progress("searching", lambda _: None)
        scores, positions = nearest(
            queries.rows, references.rows, k, left_out=np.zeros(0, np.int64), own=own, report=progress
        )
        rows, columns = np.nonzero(positions >= 0)
        return Matches(
            [queries.pictures[row].id for row in rows],
            [references.pictures[place].id for place in positions[rows, columns]],
            _rounded(scores[rows, columns]),
        )

    def estimate(self, sample: list[Sampled]) -> Scores | None:
        """The curve of the sample's edited copies; None if too many of them are bad to tell anything."""
        references = self._sets["references"]
        places = {picture.id: place for place, picture in enumerate(references.pictures)}
        made = [one for one in sample if one.picture.id in places and self._chunks.has_row(one.key)]
        staying = [one for one in made if one.stays]
        strangers = [places[one.picture.id] for one in sample if not one.stays and one.picture.id in places]
        if not staying or len(strangers) >= len(places):
            return None
        rows = self._rows([one.key for one in made])
        self._subtract_from(rows)
        scores, positions = nearest(
            rows, references.rows, 1, left_out=np.array(strangers, np.int64), own=np.full(len(made), -1),
            report=lambda _done, _all: None,
        )  # fmt: skip
        ids = [one.picture.id for one in made]
        answers = [references.pictures[place].id for place in positions[:, 0]]
        truth = GroundTruth(frozenset(ids), frozenset((one.picture.id, one.picture.id) for one in staying))
        return score_matches(Matches(ids, answers, _rounded(scores[:, 0])), truth)


def _rounded(
    scores: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """As they are written, so that a threshold read from a file separates the same pairs."""
    return np.array([float(f"{score:.9g}") for score in scores])
