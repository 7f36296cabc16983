"""DBA and negative embedding subtraction equal their formula, on easy and hard rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_retrieval import KINDS, rows_of, smoothed, subtracted

from isc_jobs.retrieval.rows import normalised
from isc_jobs.retrieval.subtraction import smooth, subtract_negatives
from isc_jobs.spec.errors import DataError


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(KINDS), st.integers(0, 999), st.integers(1, 40), st.integers(1, 9), st.integers(1, 11),
    st.sampled_from([0.0, 1.0, 2.0, 3.0]),
)  # fmt: skip
def test_smoothing_equals_the_formula(kind: str, seed: int, n: int, d: int, k: int, power: float) -> None:
    train = rows_of(kind, seed, n, d)
    np.testing.assert_allclose(smooth(train, k, power), smoothed(train, k, power), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(KINDS), st.integers(0, 999), st.integers(0, 20), st.integers(1, 40), st.integers(1, 9),
    st.integers(1, 11), st.sampled_from([0.0, 0.35, 0.8]),
)  # fmt: skip
def test_subtraction_equals_the_formula(
    kind: str, seed: int, n: int, m: int, d: int, k: int, beta: float
) -> None:  # fmt: skip
    rows, negatives = rows_of(kind, seed, n, d), rows_of(kind, seed + 1, m, d)
    expected = subtracted(rows, negatives, k, beta)
    np.testing.assert_allclose(subtract_negatives(rows, negatives, k, beta), expected, atol=1e-6)


def test_a_dissimilar_neighbour_is_weighted_negatively() -> None:
    train = np.array([[1, 0], [-0.6, 0.8]], np.float32)
    # Row 0: 1³ (1, 0) + (-.6)³ (-.6, .8) = (1.1296, -.1728), over its length.
    np.testing.assert_allclose(smooth(train, 10, 3.0)[0], np.array([1.1296, -0.1728]) / 1.1427403, atol=1e-6)


def test_equal_rows_of_training_take_one_another_out_without_noise() -> None:
    rows = np.tile(rows_of("unit", 3, 1, 256), (12, 1))
    assert not subtract_negatives(rows, rows, 10, 1.0).any()


def test_without_training_rows_nothing_is_subtracted() -> None:
    rows, none = 3 * rows_of("unit", 0, 4, 8), np.zeros((0, 8), np.float32)
    assert smooth(none, 10, 3.0).shape == (0, 8)
    np.testing.assert_allclose(subtract_negatives(rows, none, 10, 0.35), rows / 3, atol=1e-6)


def test_rows_are_normalised_over_float32_s_whole_range_and_zeros_stay() -> None:
    rows = np.array([[0, 0], [3e-30, 4e-30], [3e30, -4e30]], np.float32)
    np.testing.assert_allclose(normalised(rows), np.array([[0, 0], [0.6, 0.8], [0.6, -0.8]]), atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_rows_that_are_not_finite_are_refused(value: float) -> None:
    good, bad = rows_of("unit", 0, 4, 8), rows_of("unit", 1, 4, 8)
    bad[1, 2] = value
    for arguments in ((good, bad), (bad, good)):
        with pytest.raises(DataError, match="1 of 4 descriptors hold NaN or infinity, first row 1"):
            subtract_negatives(*arguments, 10, 0.35)
    with pytest.raises(DataError, match="NaN"):
        smooth(bad, 10, 3.0)
