"""Score normalisation by a background of training descriptors, folded into plain L2 search."""

from collections.abc import Callable

import numpy as np

from isc_jobs.retrieval.projection import fit_principal, rotated
from isc_jobs.retrieval.rows import Matrix
from isc_jobs.retrieval.search import inner_product_neighbours, silent
from isc_jobs.retrieval.submission import MAX_DIMENSIONS
from isc_jobs.spec.errors import DataError


def fold_bias(
    queries: Matrix, references: Matrix, train: Matrix, neighbours: int, weight: float,
    report: Callable[[int], None] = silent,
) -> tuple[Matrix, Matrix]:  # fmt: skip
    """Queries and references of one dimension more, whose L2 distances rank all pairs by s(q, r).

    s(q, r) = q·r - B m(q), with B ``weight`` and m(q) the mean of q's largest inner products with ``train``. For rows
    of length 1, q' = (q, a), r' = (r, 0) and a² = 2B(1 + m(q)) >= 0:
    |q' - r'|² = 2 - 2 q·r + a² = 2 + 2B - 2 s(q, r).
    a depends on no other query. Rows of MAX_DIMENSIONS lose the one along which ``train`` varies least, and are
    normalised. ``report`` is told how many queries are searched. Raises DataError without training descriptors.
    """
    if not len(train):
        raise DataError("postprocess.score_normalisation needs training descriptors, found none")
    if queries.shape[1] >= MAX_DIMENSIONS:
        principal = fit_principal([train])
        queries, references, train = (
            rotated(rows, principal, MAX_DIMENSIONS - 1) for rows in (queries, references, train)
        )
    means = inner_product_neighbours(queries, train, neighbours, report).scores.mean(axis=1)
    added = np.sqrt(np.maximum(2 * weight * (1 + means), 0)).astype(np.float32)
    return np.column_stack((queries, added)), np.column_stack((references, np.zeros(len(references), np.float32)))
