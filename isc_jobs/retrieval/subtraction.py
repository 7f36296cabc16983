"""Negative embedding subtraction (arXiv:2112.04323, section 3.4); sums are in float64, rows in float32."""

from collections.abc import Callable

import numpy as np

from isc_jobs.retrieval.rows import Matrix, by_parts, normalised
from isc_jobs.retrieval.search import inner_product_neighbours, silent

_ROWS_AT_ONCE = 512


def smooth(rows: Matrix, neighbours: int, power: float, report: Callable[[int], None] = silent) -> Matrix:
    """DBA: each row (n, d) becomes the normalised sum of its nearest rows, itself included, by inner product.

    Weights are |similarity|^power with the similarity's sign. ``report`` is told how many rows are searched.
    """
    found = inner_product_neighbours(rows, rows, neighbours, report)
    weights = np.sign(found.scores) * np.abs(found.scores) ** power
    result = np.empty_like(rows)

    def add_up(part: slice) -> None:
        sums = np.einsum("nk,nkd->nd", weights[part], rows[found.positions[part]], dtype=np.float64)
        result[part] = normalised(sums)

    by_parts(len(rows), _ROWS_AT_ONCE, add_up)
    return result


def subtract_negatives(
    rows: Matrix, negatives: Matrix, neighbours: int, beta: float, report: Callable[[int], None] = silent
) -> Matrix:
    """Rows (n, d) minus beta times the mean of their nearest negatives (m, d), normalised; no negatives, no change.

    Nearest by inner product, all if they are fewer. ``report`` is told how many rows are searched.
    """
    if not len(negatives):
        return normalised(rows)
    found = inner_product_neighbours(rows, negatives, neighbours, report)
    result = np.empty_like(rows)

    def subtract(part: slice) -> None:
        result[part] = normalised(rows[part] - beta * negatives[found.positions[part]].mean(axis=1, dtype=np.float64))

    by_parts(len(rows), _ROWS_AT_ONCE, subtract)
    return result
