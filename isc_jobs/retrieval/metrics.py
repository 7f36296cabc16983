"""Micro average precision and recall at precision 90, with the challenge's tie rule, on both tracks."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isc_jobs.retrieval.rows import Matrix
from isc_jobs.retrieval.search import RankedPairs, best_pairs, descending
from isc_jobs.retrieval.submission import (
    MAX_DIMENSIONS,
    Descriptors,
    GroundTruth,
    Matches,
    read_descriptors,
    read_ground_truth,
    read_matches,
)  # fmt: skip
from isc_jobs.spec.errors import DataError, UsageError

RESULTS_PER_QUERY = 10


@dataclass(frozen=True)
class Scores:
    """uAP, recall at precision 90, and the curve they come from: each result's score, precision and recall there."""

    uap: float
    recall_at_p90: float
    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    true_pairs: int  # that there are to find

    def lowest(self, precision: float) -> int | None:
        """Place of the last result down to whose score so large a share is true; None if there is none.

        Results of one score stand or fall together. Raises UsageError for a precision not above 0 and at most 1.
        """
        if not 0 < precision <= 1:
            raise UsageError(f"precision {precision}: expected a number above 0, at most 1")
        last_of_its_score = np.diff(self.scores, append=-np.inf) != 0
        good = np.flatnonzero(last_of_its_score & (self.precision >= precision))
        return int(good[-1]) if len(good) else None


def score_matches(matches: Matches, truth: GroundTruth) -> Scores:
    """Scores of claimed pairs: see score_pairs."""
    every = np.arange(len(matches.scores))
    return score_pairs(RankedPairs(every, every, matches.scores), matches.queries, matches.references, truth)


def score_pairs(pairs: RankedPairs, queries: Sequence[str], references: Sequence[str], truth: GroundTruth) -> Scores:
    """Scores of pairs by position; queries that the ground truth does not name are left out.

    Results are ranked by (score, not correct) descending: among equal scores wrong ones come first.
    """
    counted = _among(queries, truth.queries)[pairs.queries]
    asked, answers, scores = pairs.queries[counted], pairs.references[counted], pairs.scores[counted]
    correct = _among(queries, {query for query, _ in truth.pairs})[asked]
    named = zip(
        map(queries.__getitem__, asked[correct].tolist()), map(references.__getitem__, answers[correct].tolist()),
        strict=True,
    )  # fmt: skip
    correct[correct] = _among(list(named), truth.pairs)
    order = descending(scores, correct)
    hits = np.cumsum(correct[order])
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / len(truth.pairs)
    uap = float((precision * np.diff(recall, prepend=0)).sum())
    good = recall[precision >= 0.9]
    return Scores(uap, float(good.max(initial=0)), scores[order], precision, recall, len(truth.pairs))


def _among(values: Sequence[object], known: AbstractSet[object]) -> NDArray[np.bool_]:
    return np.fromiter(map(known.__contains__, values), bool, len(values))


def rank_descriptors(
    queries: Descriptors, references: Descriptors, results_per_query: int = RESULTS_PER_QUERY
) -> Matches:
    """The descriptor track's results: the best pairs of all queries, ``results_per_query`` on average."""
    pairs = best_pairs(queries.rows, references.rows, results_per_query * len(queries.ids))
    return Matches(
        list(map(queries.ids.__getitem__, pairs.queries.tolist())),
        list(map(references.ids.__getitem__, pairs.references.tolist())), pairs.scores,
    )  # fmt: skip


def check_ground_truth(truth: GroundTruth, queries: Descriptors, references: Descriptors, submission: str) -> None:
    """Raises DataError if the ground truth names ids that have no descriptor; ``submission`` names their file."""
    for kind, named, known in (
        ("query", truth.queries, set(queries.ids)),
        ("reference", {reference for _, reference in truth.pairs}, set(references.ids)),
    ):
        unknown = sorted(named - known)
        if unknown:
            shown = ", ".join(unknown[:5])
            raise DataError(
                f"{submission}: the ground truth names {len(unknown)} {kind} ids without a descriptor: {shown}; "
                "give the ground truth of the same phase, or extract all that it names"
            )


def evaluate_files(submission: Path, ground_truth: Path) -> Scores:
    """Scores of a descriptor file (.h5, .hdf5) or a matching file (.csv); raises UsageError or DataError."""
    truth = read_ground_truth(ground_truth)
    if submission.suffix == ".csv":
        matches = read_matches(submission)
        if matches.queries and truth.queries.isdisjoint(matches.queries):
            raise DataError(
                f"{submission.name} names no query of {ground_truth.name}: one begins with {matches.queries[0]}, the "
                f"other with {min(truth.queries)}; give the ground truth of the same queries, by the same ids"
            )
        return score_matches(matches, truth)
    if submission.suffix not in {".h5", ".hdf5"}:
        raise UsageError(f"submission {submission}: expected descriptors as .h5 or matches as .csv")
    queries, references = read_descriptors(submission, "query"), read_descriptors(submission, "reference")
    check_dimensions(submission.name, queries.rows, references.rows)
    check_ground_truth(truth, queries, references, submission.name)
    return score_matches(rank_descriptors(queries, references), truth)


def check_dimensions(name: str, queries: Matrix, references: Matrix) -> None:
    """Raises DataError unless both have the same number of dimensions, at most 256."""
    if queries.shape[1] != references.shape[1] or queries.shape[1] > MAX_DIMENSIONS:
        raise DataError(
            f"{name}: queries have {queries.shape[1]} dimensions, references {references.shape[1]}: "
            f"expected the same, at most {MAX_DIMENSIONS}"
        )
