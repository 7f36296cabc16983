"""Exact search keeps the lowest positions among equal rows, whatever faiss does at its edge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from isc_jobs.retrieval.search import Matrix, Neighbours, best_pairs, inner_product_neighbours, l2_neighbours
from isc_jobs.retrieval.subtraction import normalised, smooth, subtract_negatives
from isc_jobs.spec.errors import DataError


def few_values(seed: int, count: int, dimensions: int) -> Matrix:
    """Rows of -1, 0 and 1: most scores are tied, and sums are exact in float32."""
    return np.random.default_rng(seed).integers(-1, 2, (count, dimensions)).astype(np.float32)


def slow(scores: NDArray[np.float64], k: int) -> Neighbours:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(scores, order, 1), order)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(1, 60), st.integers(1, 300), st.integers(1, 5), st.integers(1, 12))
def test_neighbours_equal_a_stable_sort_of_all_scores(seed: int, n: int, m: int, d: int, k: int) -> None:
    queries, rows = few_values(seed, n, d), few_values(seed + 1, m, d)
    distances = ((queries[:, None] - rows[None]) ** 2).sum(axis=2, dtype=np.float64)
    for found, expected in (
        (inner_product_neighbours(queries, rows, k), slow((queries @ rows.T).astype(np.float64), k)),
        (l2_neighbours(queries, rows, k), slow(-distances, k)),
    ):
        np.testing.assert_array_equal(found.positions, expected.positions)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_many_equal_rows_come_by_position_across_query_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isc_jobs.retrieval.search._QUERIES_AT_ONCE", 3)
    found = l2_neighbours(np.ones((7, 4), np.float32), np.ones((1500, 4), np.float32), 5)
    assert found.positions.tolist() == [[0, 1, 2, 3, 4]] * 7
    assert not np.signbit(found.scores).any()


def test_nothing_to_search_is_an_empty_answer() -> None:
    some, none = few_values(0, 3, 4), np.zeros((0, 4), np.float32)
    assert inner_product_neighbours(some, none, 5).positions.shape == (3, 0)
    assert l2_neighbours(none, some, 2).positions.shape == (0, 2)
    assert best_pairs(none, some, 0).scores.shape == (0,)
    assert best_pairs(some, some, 0).scores.shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_best_pairs_refuse_values_that_are_not_finite(value: float) -> None:
    rows = few_values(0, 4, 3)
    rows[2, 1] = value
    with pytest.raises(DataError, match="1 of 4 descriptors hold NaN or infinity, first row 2"):
        best_pairs(few_values(1, 2, 3), rows, 5)


def test_best_pairs_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, references = few_values(3, 40, 3), few_values(4, 50, 3)
    whole = best_pairs(queries, references, 77)

    monkeypatch.setattr("isc_jobs.retrieval.search._BLOCK_BYTES", 3 * 50 * 4)
    for ours, expected in zip(best_pairs(queries, references, 77), whole, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_zero_rows_and_missing_negatives_stay_finite() -> None:
    rows = np.zeros((2, 4), np.float32)
    rows[1, 0] = 2
    assert normalised(rows).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]
    assert subtract_negatives(rows, np.zeros((0, 4), np.float32), 10, 0.35).tolist() == normalised(rows).tolist()
    assert np.isfinite(smooth(rows, 10, 3.0)).all()


def test_fewer_rows_than_neighbours_and_nan() -> None:
    assert inner_product_neighbours(few_values(0, 3, 8), few_values(1, 4, 8), 10).positions.shape == (3, 4)
    with pytest.raises(DataError, match="NaN"):
        l2_neighbours(np.full((1, 8), np.nan, np.float32), few_values(1, 4, 8), 2)


@pytest.mark.parametrize("cap", [1, 5, 40, 1000])
def test_the_best_pairs_are_those_of_a_full_sort_ties_included(cap: int) -> None:
    queries, references = few_values(0, 20, 3), few_values(1, 15, 3)
    every = [(-float(((q - r) ** 2).sum()), i, j) for i, q in enumerate(queries) for j, r in enumerate(references)]
    expected = sorted(every, key=lambda pair: (-pair[0], pair[1], pair[2]))[:cap]
    found = best_pairs(queries, references, cap)
    assert list(zip(found.queries.tolist(), found.references.tolist(), strict=True)) == [pair[1:] for pair in expected]
    np.testing.assert_allclose(found.scores, [pair[0] for pair in expected], atol=1e-6)
