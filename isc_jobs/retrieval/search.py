"""Exact nearest neighbours, and the best pairs under one global cap."""

from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from isc_jobs.spec.errors import DataError

Matrix = NDArray[np.float32]
_QUERIES_AT_ONCE = 4096
_BLOCK_BYTES = 64 << 20  # of scores held at once
_WIDEST = 2048  # neighbours that faiss finds at once on a GPU


class Neighbours(NamedTuple):
    """(n, k) scores, best first, and positions of the k nearest rows."""

    scores: NDArray[np.float32]
    positions: NDArray[np.int64]


class RankedPairs(NamedTuple):
    """(m,) pairs, best first: positions of query and reference, score."""

    queries: NDArray[np.int64]
    references: NDArray[np.int64]
    scores: NDArray[np.float32]


_NO_PAIRS = RankedPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def inner_product_neighbours(queries: Matrix, rows: Matrix, k: int) -> Neighbours:
    """The k rows (all, if they are fewer) of largest inner product with each query; equal ones by position."""
    return _search(faiss.IndexFlatIP(rows.shape[1]), queries, rows, k, sign=1)


def l2_neighbours(queries: Matrix, rows: Matrix, k: int) -> Neighbours:
    """The k rows (all, if they are fewer) of smallest distance; the score is -(squared L2 distance)."""
    return _search(faiss.IndexFlatL2(rows.shape[1]), queries, rows, k, sign=-1)


def _search(index: Any, queries: Matrix, rows: Matrix, k: int, sign: int) -> Neighbours:
    check_finite("queries", queries)
    check_finite("rows searched", rows)
    k = min(k, len(rows))
    found = Neighbours(np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int64))
    if not found.scores.size:
        return found
    if hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(np.ascontiguousarray(rows, np.float32))
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        block = np.ascontiguousarray(queries[part], np.float32)
        found.scores[part], found.positions[part] = _settled(index, block, k, k + 1, sign)
    return found


def _settled(index: Any, block: Matrix, k: int, width: int, sign: int) -> Neighbours:
    """The best k of ``width`` neighbours, the lowest positions first among equals.

    faiss drops any of several equal rows at its edge: where the k-th score still holds there, more are fetched.
    """
    width = min(width, index.ntotal, max(k, _WIDEST))
    scores, positions = index.search(block, width)
    scores = sign * scores + np.float32(0)  # adding 0 turns -0 into 0
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    best = Neighbours(np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1))
    tied = best.scores[:, -1] == scores.min(axis=1)
    if tied.any() and width < min(index.ntotal, _WIDEST):
        best.scores[tied], best.positions[tied] = _settled(index, block[tied], k, 4 * width, sign)
    return best


def best_pairs(queries: Matrix, references: Matrix, cap: int) -> RankedPairs:
    """The ``cap`` pairs of smallest L2 distance among all; score -(squared distance).

    Memory is bounded by a block of queries times the references and three times the cap.
    """
    check_finite("queries", queries)
    check_finite("references", references)
    if cap < 1:
        return _NO_PAIRS
    squares = np.einsum("ij,ij->i", references, references)
    block = max(1, _BLOCK_BYTES // max(1, len(references) * 4))
    best = _NO_PAIRS
    threshold = -np.inf
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        scores = 2 * (part @ references.T) - squares - np.einsum("ij,ij->i", part, part)[:, None]
        rows, columns = np.nonzero(scores >= threshold)
        more = RankedPairs(
            rows + start, columns.astype(np.int64), np.minimum(scores[rows, columns], 0).astype(np.float32)
        )
        best = _best(_joined(best, more), cap)
        if len(best.scores) == cap:
            threshold = float(best.scores[-1])
    return best


def _best(pairs: RankedPairs, cap: int) -> RankedPairs:
    if len(pairs.scores) > 2 * cap > 0:
        cut = np.partition(pairs.scores, len(pairs.scores) - cap)[len(pairs.scores) - cap]
        keep = pairs.scores >= cut
        pairs = _taken(pairs, keep)
    order = np.lexsort((pairs.references, pairs.queries, -pairs.scores))[:cap]
    return _taken(pairs, order)


def _joined(a: RankedPairs, b: RankedPairs) -> RankedPairs:
    return RankedPairs(
        np.concatenate((a.queries, b.queries)), np.concatenate((a.references, b.references)),
        np.concatenate((a.scores, b.scores)),
    )  # fmt: skip


def _taken(pairs: RankedPairs, which: NDArray[Any]) -> RankedPairs:
    return RankedPairs(pairs.queries[which], pairs.references[which], pairs.scores[which])


def check_finite(name: str, rows: Matrix) -> None:
    """Raises DataError if a value is not finite."""
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise DataError(
            f"{name}: {int(bad.sum())} of {len(rows)} descriptors hold NaN or infinity, first row {bad.argmax()}"
        )
