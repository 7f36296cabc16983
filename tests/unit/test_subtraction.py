"""DBA and negative embedding subtraction equal their formula."""

import numpy as np

from isc_jobs.retrieval.search import Matrix
from isc_jobs.retrieval.subtraction import normalised, smooth, subtract_negatives

RNG = np.random.default_rng(0)


def rows(count: int, dimensions: int = 8) -> Matrix:
    return normalised(RNG.normal(size=(count, dimensions)).astype(np.float32))


def test_smoothing_and_subtraction_equal_the_formula() -> None:
    train, queries = rows(30), rows(7)
    smoothed = []
    for row in train:
        similar = sorted(range(30), key=lambda i: -float(row @ train[i]))[:10]
        total = sum((float(row @ train[i]) ** 3) * train[i] for i in similar)
        smoothed.append(total / np.linalg.norm(total))
    found = smooth(train, 10, 3.0)
    np.testing.assert_allclose(found, smoothed, atol=1e-6)
    for row, ours in zip(queries, subtract_negatives(queries, found, 10, 0.35), strict=True):
        similar = sorted(range(30), key=lambda i: -float(row @ found[i]))[:10]
        expected = row - 0.35 * np.mean([found[i] for i in similar], axis=0)
        np.testing.assert_allclose(ours, expected / np.linalg.norm(expected), atol=1e-6)
