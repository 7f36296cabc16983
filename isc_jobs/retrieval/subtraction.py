"""Negative embedding subtraction (arXiv:2112.04323, section 3.4)."""

import numpy as np

from isc_jobs.retrieval.search import Matrix, inner_product_neighbours


def smooth(rows: Matrix, neighbours: int, power: float) -> Matrix:
    """DBA: each row (n, d) becomes the normalised sum of its neighbours and itself, weighted by similarity^power."""
    found = inner_product_neighbours(rows, rows, neighbours)
    weights = np.sign(found.scores) * np.abs(found.scores) ** power
    result = np.empty_like(rows)
    for start in range(0, len(rows), 8192):
        part = slice(start, start + 8192)
        result[part] = np.einsum("nk,nkd->nd", weights[part], rows[found.positions[part]])
    return normalised(result)


def subtract_negatives(rows: Matrix, negatives: Matrix, neighbours: int, beta: float) -> Matrix:
    """Rows (n, d) minus beta times the mean of their nearest negatives (m, d), normalised; no negatives, no change."""
    if not len(negatives):
        return normalised(rows)
    found = inner_product_neighbours(rows, negatives, neighbours)
    result = np.empty_like(rows)
    for start in range(0, len(rows), 8192):
        part = slice(start, start + 8192)
        result[part] = rows[part] - beta * negatives[found.positions[part]].mean(axis=1)
    return normalised(result)


def normalised(rows: Matrix) -> Matrix:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
