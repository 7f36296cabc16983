"""Descriptors as rows of a matrix."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from isc_jobs.spec.errors import DataError

Matrix = NDArray[np.float32]
Wide = NDArray[np.float64]


def lengths(rows: Matrix) -> Wide:
    """(n,) Euclidean lengths of rows (n, d), in float64."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)))


def normalised(rows: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Matrix:
    """Rows of length 1, float32; a row of zeros stays."""
    sizes = lengths(rows)[:, None]
    result = np.empty(rows.shape, np.float32)
    np.divide(rows, np.where(sizes > 0, sizes, 1), out=result, casting="same_kind")
    return result


def check_finite(name: str, rows: Matrix) -> None:
    """Raises DataError if a value is not finite."""
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise DataError(
            f"{name}: {int(bad.sum())} of {len(rows)} descriptors hold NaN or infinity, first row {bad.argmax()}"
        )


def by_parts(count: int, step: int, work: Callable[[slice], None]) -> None:
    """``work`` for every ``step`` of ``count`` rows, on all cores that this process may use: numpy releases the GIL.

    Raises what ``work`` raises first.
    """
    if count <= step:
        work(slice(0, count))
        return
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(work, (slice(start, min(start + step, count)) for start in range(0, count, step))))
