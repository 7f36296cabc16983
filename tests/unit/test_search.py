"""Exact search equals float64 on easy and hard rows, and keeps the lowest positions among equal ones."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slow_retrieval import KINDS, all_pairs, first, inner, nearness, rows_of

from isc_jobs.retrieval import proposals
from isc_jobs.retrieval.rows import normalised
from isc_jobs.retrieval.search import best_pairs, inner_product_neighbours, l2_neighbours
from isc_jobs.spec.errors import DataError


@pytest.fixture(params=["float32", "bfloat16"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What candidates are found in, whatever this processor is quick at."""
    monkeypatch.setattr(proposals, "_LARGE", 0)
    monkeypatch.setattr(proposals, "_WORTHWHILE", 0)
    monkeypatch.setattr(proposals, "_multiplies_bfloat16", lambda: request.param == "bfloat16")
    return str(request.param)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # fmt: skip
@given(
    st.sampled_from(KINDS), st.integers(0, 999), st.integers(1, 25), st.integers(1, 120), st.integers(1, 9),
    st.integers(1, 12),
)  # fmt: skip
def test_neighbours_and_their_order_are_those_of_float64(
    arithmetic: str, kind: str, seed: int, n: int, m: int, d: int, k: int
) -> None:  # fmt: skip
    assert arithmetic
    rows = rows_of(kind, seed, m, d)
    queries = np.vstack((rows_of(kind, seed + 1, n, d), rows[:5]))
    for search, score in ((inner_product_neighbours, inner), (l2_neighbours, nearness)):
        found = search(queries, rows, k)
        for place, query in enumerate(queries):
            scores = [score(query, row) for row in rows]
            best = first(scores, k)
            assert found.positions[place].tolist() == best
            np.testing.assert_allclose(found.scores[place], [scores[i] for i in best], atol=1e-12)


@pytest.mark.parametrize("common", [0, 1, 10, 300])
@pytest.mark.parametrize("squared_distance", [False, True])
def test_bounds_of_bfloat16_hold_and_what_is_not_proposed_is_below_them(*, squared_distance: bool, common: int) -> None:
    shared = common * rows_of("unit", 2, 1, 256)  # by all
    rows, queries = (normalised(shared + rows_of("unit", seed, n, 256)) for seed, n in ((0, 3001), (1, 300)))
    queries[:100] = normalised(rows[:100] + 0.5 * queries[:100])
    found = proposals.Bfloat16Proposer(rows, squared_distance=squared_distance).propose(queries, 40)
    products = queries.astype(np.float64) @ rows.T.astype(np.float64)
    scores = -((queries.astype(np.float64)[:, None] - rows) ** 2).sum(axis=2) if squared_distance else products
    proposed = np.take_along_axis(scores, found.positions, 1)
    assert (found.lowest <= proposed).all()
    assert (proposed <= found.highest).all()
    spread = 1 / (1 + common**2)  # of squared distances
    assert np.ptp([found.lowest, found.highest], axis=0).max() < 0.04 * spread + 1e-6  # and they are of use
    assert (np.diff(found.lowest) <= 0).all()
    assert (np.diff(found.highest) <= 0).all()
    np.put_along_axis(scores, found.positions, -np.inf, 1)
    assert (scores.max(axis=1) <= found.highest[:, -1]).all()


def test_small_searches_and_rows_of_many_lengths_are_left_to_faiss(arithmetic: str) -> None:
    kinds = {"float32": proposals.FaissProposer, "bfloat16": proposals.Bfloat16Proposer}
    rows = rows_of("unit", 0, 40, 8)
    assert isinstance(proposals.make_proposer(rows, rows[:3], squared_distance=True), kinds[arithmetic])
    longer = rows * np.linspace(1, 2, 40, dtype=np.float32)[:, None]
    assert isinstance(proposals.make_proposer(longer, rows[:3], squared_distance=True), proposals.FaissProposer)
    assert isinstance(proposals.make_proposer(longer, rows[:3], squared_distance=False), kinds[arithmetic])
    for far in ((1e10 * rows, rows), (rows, 1e10 * rows)):
        assert isinstance(proposals.make_proposer(*far, squared_distance=False), proposals.FaissProposer)


@pytest.mark.parametrize("seed", range(5))
def test_lengths_beyond_float32_are_searched_too(seed: int) -> None:
    queries, rows = rows_of("any length", seed, 30, 6), rows_of("any length", seed + 50, 40, 6)
    for search, score in ((inner_product_neighbours, inner), (l2_neighbours, nearness)):
        scores = np.array([[score(query, row) for row in rows] for query in queries])
        np.testing.assert_allclose(search(queries, rows, 7).scores, -np.sort(-scores)[:, :7], rtol=1e-12)
    best = all_pairs(queries, rows)[:90]
    np.testing.assert_allclose(best_pairs(queries, rows, 90).scores, [pair[0] for pair in best], rtol=1e-12)


def test_a_row_whose_score_is_no_number_in_float32_is_found() -> None:
    rows = np.zeros((21, 16), np.float32)
    rows[:20, 0] = 1e18 * np.arange(1, 21)
    rows[20] = 2e20 * np.array([1, -1] * 7 + [1, 1])
    found = inner_product_neighbours(np.full((25, 16), 1e19, np.float32), rows, 2)
    assert found.positions.tolist() == [[20, 19]] * 25


@pytest.mark.parametrize("others", [0, 3000])
@pytest.mark.usefixtures("arithmetic")
def test_equal_descriptors_of_full_size_score_0_and_come_before_nearly_equal_ones(others: int) -> None:
    rows = rows_of("unit", 0, 40 + others, 256)
    near = normalised(rows[:40] + 3e-6 * rows_of("unit", 1, 40, 256))
    references = np.vstack((near, rows))
    found = l2_neighbours(rows[:40], references, 2)
    assert found.positions.tolist() == [[40 + i, i] for i in range(40)]
    assert not found.scores[:, 0].any()
    pairs = best_pairs(rows[:40], references, 40)
    assert (pairs.queries.tolist(), pairs.references.tolist()) == (list(range(40)), list(range(40, 80)))
    assert not pairs.scores.any()


@pytest.mark.usefixtures("arithmetic")
def test_thousands_of_equal_rows_come_by_position() -> None:
    rows = np.ones((5000, 4), np.float32)
    rows[4990] = 2
    found = l2_neighbours(np.ones((3, 4), np.float32), rows, 3)
    assert found.positions.tolist() == [[0, 1, 2]] * 3
    found = inner_product_neighbours(np.ones((3, 4), np.float32), rows, 3)
    assert found.positions.tolist() == [[4990, 0, 1]] * 3


def test_the_report_counts_queries_up_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isc_jobs.retrieval.search._QUERIES_AT_ONCE", 3)
    said: list[int] = []
    l2_neighbours(rows_of("unit", 0, 7, 4), rows_of("unit", 1, 9, 4), 2, said.append)
    assert said == [3, 6, 7]


def test_many_equal_rows_come_by_position_across_query_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isc_jobs.retrieval.search._QUERIES_AT_ONCE", 3)
    found = l2_neighbours(np.ones((7, 4), np.float32), np.ones((1500, 4), np.float32), 5)
    assert found.positions.tolist() == [[0, 1, 2, 3, 4]] * 7
    assert not np.signbit(found.scores).any()


def test_nothing_to_search_is_an_empty_answer() -> None:
    some, none = rows_of("few values", 0, 3, 4), np.zeros((0, 4), np.float32)
    assert inner_product_neighbours(some, none, 5).positions.shape == (3, 0)
    assert l2_neighbours(none, some, 2).positions.shape == (0, 2)
    assert best_pairs(none, some, 0).scores.shape == (0,)
    assert best_pairs(some, some, 0).scores.shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("search", [inner_product_neighbours, l2_neighbours, best_pairs])
def test_values_that_are_not_finite_are_refused(search: Callable[..., object], value: float) -> None:
    good, bad = rows_of("unit", 1, 2, 3), rows_of("unit", 0, 4, 3)
    bad[2, 1] = value
    for arguments in ((good, bad), (bad, good)):
        with pytest.raises(DataError, match="1 of 4 descriptors hold NaN or infinity, first row 2"):
            search(*arguments, 5)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(KINDS), st.integers(0, 999), st.integers(1, 20), st.integers(1, 25), st.integers(1, 6),
    st.sampled_from([1, 2, 5, 17, 40, 1000]), st.sampled_from([1, 300, 1 << 20]),
)  # fmt: skip
def test_the_best_pairs_are_those_of_a_full_sort_whatever_the_block(
    kind: str, seed: int, n: int, m: int, d: int, cap: int, block_bytes: int
) -> None:  # fmt: skip
    queries, references = rows_of(kind, seed, n, d), rows_of(kind, seed + n % 2, m, d)  # seed + 0: the same rows
    expected = all_pairs(queries, references)[:cap]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("isc_jobs.retrieval.search._BLOCK_BYTES", block_bytes)
        found = best_pairs(queries, references, cap)
    assert list(zip(found.queries.tolist(), found.references.tolist(), strict=True)) == [pair[1:] for pair in expected]
    np.testing.assert_allclose(found.scores, [pair[0] for pair in expected], atol=1e-12)
