"""The nearest references of queries, with a block of each in memory at a time."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from isc_jobs.retrieval.rows import Matrix
from isc_jobs.retrieval.search import l2_neighbours

_ROWS_AT_ONCE = 65_536


def nearest(
    queries: Matrix, references: Matrix, k: int, *, left_out: NDArray[np.int64], own: NDArray[np.int64],
    report: Callable[[int, int], None], rows_at_once: int = _ROWS_AT_ONCE,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # fmt: skip
    """Scores (n, k), -(squared L2 distance), best first, and positions of the k nearest references (m, d).

    Equal ones by position. Never found are the positions ``left_out``, and for each query ``own`` (n,), -1 for none.
    Where there are fewer than k, scores are -infinity and positions -1. ``report`` is told of blocks done and all.
    """
    width = k + int((own >= 0).any())
    scores = np.full((len(queries), width), -np.inf)
    positions = np.full((len(queries), width), -1, np.int64)
    allowed = np.ones(len(references), bool)
    allowed[left_out] = False
    blocks = [
        (first, start)
        for start in range(0, len(references), rows_at_once)
        for first in range(0, len(queries), rows_at_once)
    ]
    for done, (first, start) in enumerate(blocks, start=1):
        part = slice(first, first + rows_at_once)
        places = start + np.flatnonzero(allowed[start : start + rows_at_once])
        found = l2_neighbours(np.asarray(queries[part]), np.asarray(references[places]), width)
        _merge(scores[part], positions[part], found.scores, places[found.positions])
        report(done, len(blocks))
    is_own = positions == own[:, None]
    scores[is_own], positions[is_own] = -np.inf, -1
    return _first(scores, positions, k)


def _merge(
    scores: NDArray[np.float64], positions: NDArray[np.int64], more: NDArray[np.floating], where: NDArray[np.int64]
) -> None:  # fmt: skip
    """Take better neighbours in, in place."""
    all_scores, all_positions = np.hstack((scores, more)), np.hstack((positions, where))
    scores[:], positions[:] = _first(all_scores, all_positions, scores.shape[1])


def _first(
    scores: NDArray[np.float64], positions: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # fmt: skip
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
