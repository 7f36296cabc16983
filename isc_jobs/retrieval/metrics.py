"""Micro average precision and recall at precision 90, with the challenge's tie rule, on both tracks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isc_jobs.retrieval.search import Matrix, best_pairs
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
    """Scores of claimed pairs; queries that the ground truth does not name are left out.

    Results are ranked by (score, not correct) descending: among equal scores wrong ones come first.
    """
    kept = [i for i, query in enumerate(matches.queries) if query in truth.queries]
    correct = np.array([(matches.queries[i], matches.references[i]) in truth.pairs for i in kept], bool)
    order = np.lexsort((correct, -matches.scores[kept]))
    hits = np.cumsum(correct[order])
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / len(truth.pairs)
    uap = float((precision * np.diff(recall, prepend=0)).sum())
    good = recall[precision >= 0.9]
    return Scores(uap, float(good.max(initial=0)), matches.scores[kept][order], precision, recall)


def rank_descriptors(
    queries: Descriptors, references: Descriptors, results_per_query: int = RESULTS_PER_QUERY
) -> Matches:
    """The descriptor track's results: the best pairs of all queries, ``results_per_query`` on average."""
    pairs = best_pairs(queries.rows, references.rows, results_per_query * len(queries.ids))
    return Matches(
        [queries.ids[place] for place in pairs.queries], [references.ids[place] for place in pairs.references],
        pairs.scores,
    )  # fmt: skip


def check_ground_truth(truth: GroundTruth, queries: Descriptors, references: Descriptors) -> None:
    """Raises DataError if the ground truth names ids that have no descriptor."""
    for kind, named, known in (
        ("query", truth.queries, set(queries.ids)),
        ("reference", {reference for _, reference in truth.pairs}, set(references.ids)),
    ):
        unknown = sorted(named - known)
        if unknown:
            shown = ", ".join(unknown[:5])
            raise DataError(f"the ground truth names {len(unknown)} {kind} ids without a descriptor: {shown}")


def evaluate_files(submission: Path, ground_truth: Path) -> Scores:
    """Scores of a descriptor file (.h5, .hdf5) or a matching file (.csv); raises UsageError or DataError."""
    truth = read_ground_truth(ground_truth)
    if submission.suffix == ".csv":
        matches = read_matches(submission)
        if matches.queries and truth.queries.isdisjoint(matches.queries):
            raise DataError(
                f"{submission.name} names no query of {ground_truth.name} (it begins with {matches.queries[0]}): "
                "give the ground truth of the same phase"
            )
        return score_matches(matches, truth)
    if submission.suffix not in {".h5", ".hdf5"}:
        raise UsageError(f"submission {submission}: expected descriptors as .h5 or matches as .csv")
    queries, references = read_descriptors(submission, "query"), read_descriptors(submission, "reference")
    check_dimensions(submission.name, queries.rows, references.rows)
    check_ground_truth(truth, queries, references)
    return score_matches(rank_descriptors(queries, references), truth)


def check_dimensions(name: str, queries: Matrix, references: Matrix) -> None:
    """Raises DataError unless both have the same number of dimensions, at most 256."""
    if queries.shape[1] != references.shape[1] or queries.shape[1] > MAX_DIMENSIONS:
        raise DataError(
            f"{name}: queries have {queries.shape[1]} dimensions, references {references.shape[1]}: "
            f"expected the same, at most {MAX_DIMENSIONS}"
        )
