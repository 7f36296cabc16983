"""PCA equals a singular value decomposition, with signs that do not depend on chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_retrieval import Wide, rows_of

from isc_jobs.retrieval.projection import fit_principal, reduced, rotated
from isc_jobs.retrieval.rows import Matrix
from isc_jobs.spec.errors import DataError


def spread(seed: int, count: int, dimensions: int) -> Matrix:
    """Rows whose directions have clearly different variances, away from the origin."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(dimensions, dimensions))).Q
    rows: Wide = rng.normal(size=(count, dimensions)) * 0.7 ** np.arange(dimensions) @ turned + 1
    return rows.astype(np.float32)


def slow_axes(rows: Matrix) -> Wide:
    """Right singular vectors of the centred rows, the largest component positive."""
    wide = rows.astype(float)
    axes = np.linalg.svd(wide - wide.mean(axis=0), full_matrices=False)[2]
    return np.array([axis * np.sign(axis[np.abs(axis).argmax()]) for axis in axes])


def slow_reduced(rows: Matrix, train: Matrix, dimensions: int) -> Wide:
    along = (rows.astype(float) - train.astype(float).mean(axis=0)) @ slow_axes(train)[:dimensions].T
    return np.asarray(along / np.linalg.norm(along, axis=1, keepdims=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(2, 12), st.integers(13, 60), st.sampled_from([1, 7, 8192]))
def test_rows_along_the_axes_equal_a_singular_value_decomposition(seed: int, d: int, n: int, block: int) -> None:
    train, rows = spread(seed, n, d), spread(seed + 1, 9, d)
    dimensions = 1 + seed % d
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("isc_jobs.retrieval.projection._ROWS_AT_ONCE", block)
        principal = fit_principal([train[:, :1], train[:, 1:]])
        found = reduced([rows[:, :-1], rows[:, -1:]], principal, dimensions)
    np.testing.assert_allclose(principal.axes, slow_axes(train), atol=1e-5)
    np.testing.assert_allclose(found, slow_reduced(rows, train, dimensions), atol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("kind", ["unit", "duplicates", "all equal", "some zero"])
@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_fewer_rows_than_dimensions_still_give_all_axes(kind: str, count: int) -> None:
    train = rows_of(kind, 3, count, 24)
    axes = fit_principal([train]).axes
    np.testing.assert_allclose(axes @ axes.T, np.eye(24), atol=1e-12)
    known = np.linalg.matrix_rank(train.astype(float) - train.mean(axis=0, dtype=float), tol=1e-5)
    gaps = train.astype(float) - train.mean(axis=0, dtype=float)
    np.testing.assert_allclose(axes[known:] @ gaps.T, 0, atol=1e-6)  # the axes added are those without variance


def test_axes_of_no_variance_do_not_depend_on_the_last_digits_of_the_rows() -> None:
    train = rows_of("unit", 0, 6, 16).astype(float)
    moved = train * (1 + 1e-7 * np.random.default_rng(0).normal(size=train.shape))
    ours, theirs = (fit_principal([rows.astype(np.float32)]).axes for rows in (train, moved))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_sign_of_an_axis_is_that_of_its_largest_component() -> None:
    along = np.outer(np.arange(-3, 4), [0.6, -0.8]).astype(np.float32)
    np.testing.assert_allclose(fit_principal([along]).axes, [[-0.6, 0.8], [0.8, 0.6]], atol=1e-7)
    for second in (0.49999997, 0.5, 0.50000006):  # among components of one size the first, whatever the last digits
        tied = np.outer(np.arange(-3, 4), [-0.5, second]).astype(np.float32)
        np.testing.assert_allclose(fit_principal([tied]).axes[0], np.array([1, -1]) / np.sqrt(2), atol=1e-6)


def test_a_rotation_keeps_inner_products_but_for_the_axis_left_out() -> None:
    train, rows = spread(0, 200, 12), spread(1, 30, 12)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    principal = fit_principal([train])
    whole = rotated(rows, principal, 12)
    np.testing.assert_allclose(whole @ whole.T, rows @ rows.T, atol=1e-6)
    kept = rows.astype(float) @ slow_axes(train)[:11].T
    np.testing.assert_allclose(rotated(rows, principal, 11), kept / np.linalg.norm(kept, axis=1)[:, None], atol=1e-5)


def test_without_rows_there_is_no_axis() -> None:
    with pytest.raises(DataError, match="PCA needs training descriptors, found none"):
        fit_principal([np.zeros((0, 4), np.float32)])
