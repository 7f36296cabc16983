"""Score normalisation folded into L2: all pairs rank as by the explicit score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_retrieval import Wide, first, inner, nearness, rows_of

from isc_jobs.retrieval.projection import fit_principal, rotated
from isc_jobs.retrieval.rows import Matrix
from isc_jobs.retrieval.score_normalisation import fold_bias
from isc_jobs.retrieval.search import best_pairs
from isc_jobs.spec.errors import DataError


def explicit(queries: Matrix, references: Matrix, train: Matrix, k: int, weight: float) -> Wide:
    """(n, m) q·r - B * mean of q's k largest inner products with the training descriptors."""
    scores = []
    for query in queries:
        similar = [inner(query, row) for row in train]
        bias = np.mean([similar[place] for place in first(similar, k)])
        scores.append([inner(query, reference) - weight * bias for reference in references])
    return np.array(scores)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["unit", "duplicates", "near duplicates", "all equal"]), st.integers(0, 999), st.integers(1, 12),
    st.integers(1, 15), st.integers(1, 20), st.integers(2, 9), st.integers(1, 12),
    st.sampled_from([0.0, 0.3, 1.0, 5.0]),
)  # fmt: skip
def test_all_pairs_rank_by_l2_as_by_the_explicit_score(
    kind: str, seed: int, n: int, m: int, t: int, d: int, k: int, weight: float
) -> None:
    queries, references, train = (rows_of(kind, seed + i, size, d) for i, size in enumerate((n, m, t)))
    if kind == "near duplicates":
        queries, references, train = (x / np.linalg.norm(x, axis=1)[:, None] for x in (queries, references, train))
    ours, theirs = fold_bias(queries, references, train, k, weight)
    assert (ours.shape, theirs.shape) == ((n, d + 1), (m, d + 1))
    assert {ours.dtype, theirs.dtype} == {np.dtype(np.float32)}
    scores = explicit(queries, references, train, k, weight)
    distances = np.array([[nearness(q, r) for r in theirs] for q in ours])
    np.testing.assert_allclose(distances, 2 * scores - 2 - 2 * weight, atol=1e-5)
    ranked = best_pairs(ours, theirs, n * m)
    assert np.diff(scores[ranked.queries, ranked.references]).max(initial=0) < 1e-6  # never rises beyond rounding


def test_the_bias_changes_the_order_across_queries() -> None:
    queries, references = rows_of("unit", 0, 20, 8), rows_of("unit", 1, 30, 8)
    train = rows_of("unit", 2, 40, 8)
    plain, folded = (
        best_pairs(*rows, 50) for rows in ((queries, references), fold_bias(queries, references, train, 5, 1.0))
    )
    assert plain.queries.tolist() != folded.queries.tolist()
    best = np.argsort(-explicit(queries, references, train, 5, 1.0), axis=None)[:50]
    assert (folded.queries * 30 + folded.references).tolist() == best.tolist()


def test_rows_of_256_dimensions_lose_the_one_of_least_variance() -> None:
    queries, references, train = (rows_of("unit", seed, size, 256) for seed, size in ((0, 9), (1, 11), (2, 400)))
    ours, theirs = fold_bias(queries, references, train, 10, 0.5)
    assert (ours.shape, theirs.shape) == ((9, 256), (11, 256))
    principal = fit_principal([train])
    queries, references, train = (rotated(rows, principal, 255) for rows in (queries, references, train))
    scores = explicit(queries, references, train, 10, 0.5)
    distances = np.array([[nearness(q, r) for r in theirs] for q in ours])
    np.testing.assert_allclose(distances, 2 * scores - 3, atol=1e-6)


def test_rows_of_255_dimensions_are_kept_as_they_are() -> None:
    queries, references, train = (rows_of("unit", seed, 5, 255) for seed in range(3))
    ours, theirs = fold_bias(queries, references, train, 10, 0.5)
    np.testing.assert_array_equal(ours[:, :255], queries)
    np.testing.assert_array_equal(theirs[:, :255], references)
    assert not theirs[:, 255].any()


@pytest.mark.parametrize("dimensions", [8, 256])
def test_a_query_s_row_does_not_depend_on_the_other_queries(dimensions: int) -> None:
    queries, references, train = (rows_of("unit", seed, 30, dimensions) for seed in range(3))
    together = fold_bias(queries, references, train, 10, 0.5)
    alone = fold_bias(queries[4:5], references, train, 10, 0.5)
    np.testing.assert_allclose(alone[0], together[0][4:5], atol=1e-6)
    np.testing.assert_array_equal(alone[1], together[1])


def test_without_training_descriptors_it_is_refused() -> None:
    rows = rows_of("unit", 0, 3, 4)
    with pytest.raises(DataError, match=r"score_normalisation needs training descriptors, found none"):
        fold_bias(rows, rows, rows[:0], 10, 0.5)
