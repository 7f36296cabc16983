"""PCA: principal axes of training descriptors, and descriptors brought to fewer dimensions along them.

Descriptors come as parts, matrices of the same rows that stand side by side; never joined as a whole, but in blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isc_jobs.retrieval.rows import Matrix, normalised
from isc_jobs.spec.errors import DataError

_ROWS_AT_ONCE = 8192
_NO_VARIANCE = 1e-12  # of the rows' mean square length: below float32's rounding of the descriptors


@dataclass(frozen=True)
class Principal:
    """Mean (d,) of the rows and orthonormal axes (d, d), by falling variance."""

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]


def fit_principal(parts: Sequence[Matrix]) -> Principal:
    """Mean and principal axes of rows (n, d), from their covariance, summed up in blocks in float64.

    Of each axis the largest component is positive. Directions in which the rows do not vary, as with fewer rows than
    dimensions, get the axes that a Householder QR of the others adds. Raises DataError without rows.
    """
    count = len(parts[0])
    if not count:
        raise DataError("PCA needs training descriptors, found none")
    mean = sum(block.sum(axis=0) for block in _blocks(parts)) / count
    gaps = (block - mean for block in _blocks(parts))
    covariance = sum(gap.T @ gap for gap in gaps) / count
    variances, columns = np.linalg.eigh(covariance)  # ascending
    rank = np.count_nonzero(variances > _NO_VARIANCE * (variances.sum() + mean @ mean))
    axes = np.linalg.qr(columns[:, ::-1][:, :rank], mode="complete").Q.T
    largest = np.abs(axes).round(6).argmax(axis=1)  # rounded: among equal ones the first, whatever the last digits
    return Principal(mean, axes * np.where(axes[np.arange(len(axes)), largest] < 0, -1, 1)[:, None])


def reduced(parts: Sequence[Matrix], principal: Principal, dimensions: int) -> Matrix:
    """Centred rows (n, d) along the first ``dimensions`` axes, not whitened, normalised."""
    return _along(parts, principal.axes[:dimensions], principal.mean)


def rotated(rows: Matrix, principal: Principal, dimensions: int) -> Matrix:
    """Rows (n, d) along the first ``dimensions`` axes, not centred, normalised: inner products are nearly kept."""
    return _along([rows], principal.axes[:dimensions], np.zeros_like(principal.mean))


def _along(parts: Sequence[Matrix], axes: NDArray[np.float64], centre: NDArray[np.float64]) -> Matrix:
    result = np.empty((len(parts[0]), len(axes)), np.float32)
    for number, block in enumerate(_blocks(parts)):
        start = number * _ROWS_AT_ONCE
        result[start : start + _ROWS_AT_ONCE] = normalised((block - centre) @ axes.T)
    return result


def _blocks(parts: Sequence[Matrix]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(parts[0]), _ROWS_AT_ONCE):
        yield np.hstack([part[start : start + _ROWS_AT_ONCE] for part in parts]).astype(np.float64)
