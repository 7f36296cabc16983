"""Exact nearest neighbours, and the best pairs under one global cap.

Candidates are found in float32 or bfloat16, fast, and ranked in float64: a candidate is left out only where rounding
cannot have kept it from the result. So scores and order are those of float64, and equal rows have equal scores.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isc_jobs.retrieval.proposals import make_proposer, rounding
from isc_jobs.retrieval.rows import Matrix, Wide, by_parts, check_finite, lengths

_QUERIES_AT_ONCE = 16_384
_BLOCK_BYTES = 64 << 20  # of scores or rows held at once
_CACHED_BYTES = 1 << 20  # of rows that a processor's cache holds
_WIDEST = 2048  # neighbours that faiss finds at once on a GPU


class Neighbours(NamedTuple):
    """(n, k) scores, best first, and positions of the k nearest rows."""

    scores: NDArray[np.float64]
    positions: NDArray[np.int64]


class RankedPairs(NamedTuple):
    """(m,) pairs, best first: positions of query and reference, score."""

    queries: NDArray[np.int64]
    references: NDArray[np.int64]
    scores: NDArray[np.float64]


_NO_PAIRS = RankedPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def silent(_done: int) -> None:
    """Nothing is said of the work done."""


def inner_product_neighbours(
    queries: Matrix, rows: Matrix, k: int, report: Callable[[int], None] = silent
) -> Neighbours:
    """The k rows (all, if they are fewer) of largest inner product with each query; equal ones by position.

    ``report`` is told after every block how many queries are done. Raises DataError for NaN or infinity.
    """
    return _Search(_inner_products, queries, rows).nearest(k, report)


def l2_neighbours(queries: Matrix, rows: Matrix, k: int, report: Callable[[int], None] = silent) -> Neighbours:
    """The k rows (all, if they are fewer) of smallest distance; the score is -(squared L2 distance).

    Equal ones by position; ``report`` and errors as of ``inner_product_neighbours``.
    """
    return _Search(_nearness, queries, rows).nearest(k, report)


def _inner_products(queries_nd: Wide, rows_nkd: Wide) -> Wide:
    return np.asarray(np.einsum("nd,nkd->nk", queries_nd, rows_nkd))


def _nearness(queries_nd: Wide, rows_nkd: Wide) -> Wide:
    gaps = rows_nkd - queries_nd[:, None]
    return np.asarray(0 - np.einsum("nkd,nkd->nk", gaps, gaps))


class _Search:
    """The nearest of ``rows`` by a score: a proposer proposes, float64 decides."""

    def __init__(self, score: Callable[[Wide, Wide], Wide], queries: Matrix, rows: Matrix) -> None:
        """``score``: _inner_products or _nearness."""
        check_finite("queries", queries)
        check_finite("rows searched", rows)
        self._score, self._queries, self._rows = score, queries, rows
        self._proposer = make_proposer(rows, queries, squared_distance=score is _nearness)

    def nearest(self, k: int, report: Callable[[int], None]) -> Neighbours:
        count, k = len(self._queries), min(k, len(self._rows))
        found = Neighbours(np.zeros((count, k)), np.zeros((count, k), np.int64))
        for start in range(0, count if k else 0, _QUERIES_AT_ONCE):
            which = np.arange(start, min(start + _QUERIES_AT_ONCE, count))
            found.scores[which], found.positions[which] = self._settled(which, k, k + self._proposer.spare)
            report(int(which[-1]) + 1)
        return found

    def _settled(self, which: NDArray[np.int64], k: int, width: int) -> Neighbours:
        """The best k of ``width`` proposed for the queries ``which``; more are fetched for those still in doubt.

        Of the proposals those count that may reach what the k-th is sure of.
        """
        width = min(width, len(self._rows))
        if width > _WIDEST:
            return self._scanned(which, k)
        positions, highest, lowest = self._proposer.propose(self._queries[which], width)
        scores = self._scores(which, positions, ~(highest < lowest[:, k - 1 : k]))
        order = np.lexsort((positions, -scores), axis=1)[:, :k]
        best = Neighbours(np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1))
        open_ = (positions < 0).any(axis=1)  # places are left empty where float32 overflows
        if width < len(self._rows):
            open_ |= ~(best.scores[:, -1] > highest[:, -1])
        if open_.any():
            rest, all_ = which[open_], width == len(self._rows)
            again = self._scanned(rest, k) if all_ else self._settled(rest, k, 4 * width)
            best.scores[open_], best.positions[open_] = again
        return best

    def _scores(self, which: NDArray[np.int64], positions: NDArray[np.int64], counts: NDArray[np.bool_]) -> Wide:
        """Of every pair that counts; -inf for the others."""
        scores = np.full(positions.shape, -np.inf)
        places, columns = np.nonzero(counts)
        found = positions[places, columns]

        def score(part: slice) -> None:
            queries, rows = self._queries[which[places[part]]], self._rows[found[part]]
            exact = self._score(queries.astype(np.float64), rows.astype(np.float64)[:, None])[:, 0]
            scores[places[part], columns[part]] = exact

        by_parts(len(places), max(1, _CACHED_BYTES // (8 * max(1, self._rows.shape[1]))), score)
        return scores

    def _scanned(self, which: NDArray[np.int64], k: int) -> Neighbours:
        """Every row in float64: for thousands of equal rows, and for values beyond float32's range when squared."""
        step = max(1, _BLOCK_BYTES // (8 * max(1, self._rows.shape[1])))
        found = Neighbours(np.empty((len(which), k)), np.empty((len(which), k), np.int64))
        for place, query in enumerate(self._queries[which].astype(np.float64)):
            blocks = (self._rows[start : start + step] for start in range(0, len(self._rows), step))
            scores = np.concatenate([self._score(query[None], block[None].astype(np.float64))[0] for block in blocks])
            found.positions[place] = np.argsort(-scores, kind="stable")[:k]
            found.scores[place] = scores[found.positions[place]]
        return found


def best_pairs(queries: Matrix, references: Matrix, cap: int) -> RankedPairs:
    """The ``cap`` pairs of smallest L2 distance among all; score -(squared distance); equal ones by position.

    Memory is bounded by a block of queries times the references and three times the cap.
    Raises DataError for NaN or infinity.
    """
    check_finite("queries", queries)
    check_finite("references", references)
    best, least = _NO_PAIRS, -np.inf
    if cap < 1 or not len(references):
        return best
    doubt = float(rounding(queries, lengths(references).max(initial=0)).max(initial=0))
    step = max(1, _BLOCK_BYTES // (len(references) * 4))
    for start in range(0, len(queries), step):
        rows, columns = _candidates(queries[start : start + step], references, cap, least, doubt)
        scores = _pair_scores(queries, references, rows + start, columns)
        best = _joined(best, RankedPairs(rows + start, columns, scores))
        if len(best.scores) > 2 * cap:
            best = best_of(best, cap)
            least = float(best.scores[-1])
    return best_of(best, cap)


def _candidates(
    queries: Matrix, references: Matrix, cap: int, least: float, doubt: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pairs that may score ``least`` or more and be among a block's best ``cap``."""
    with np.errstate(over="ignore", invalid="ignore"):  # then the doubt is infinite, and every pair a candidate
        squares = [np.einsum("ij,ij->i", part, part) for part in (queries, references)]
        scores = 2 * (queries @ references.T) - squares[1] - squares[0][:, None]
        chosen = ~(scores < least - doubt)
        if np.count_nonzero(chosen) > cap:
            cut = float(np.partition(scores[chosen], -cap)[-cap])
            chosen &= ~(scores < cut - 2 * doubt)
    rows, columns = np.nonzero(chosen)
    return rows, columns


def _pair_scores(queries: Matrix, references: Matrix, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Wide:
    scores = np.empty(len(rows))
    step = max(1, _BLOCK_BYTES // (8 * max(1, queries.shape[1])))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found = references[columns[part]].astype(np.float64)
        scores[part] = _nearness(queries[rows[part]].astype(np.float64), found[:, None])[:, 0]
    return scores


def best_of(pairs: RankedPairs, cap: int) -> RankedPairs:
    """The ``cap`` surest of any pairs, best first; equal ones by position."""
    if len(pairs.scores) > cap > 0:
        cut = np.partition(pairs.scores, -cap)[-cap]
        pairs = _taken(pairs, np.flatnonzero(pairs.scores >= cut))
    return _taken(pairs, descending(pairs.scores, pairs.queries, pairs.references)[:cap])


def descending(scores: NDArray[np.float64], *ties: NDArray[Any]) -> NDArray[np.int64]:
    """Order of scores (m,) from the highest; equal ones by the first of ``ties`` (m,) ascending, then the next.

    Scores are sorted alone, which is ten times as fast, and then the few that are equal.
    """
    order = np.argsort(-scores)
    equal = np.diff(scores[order]) == 0
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    among = order[tied]
    order[tied] = among[np.lexsort((*(key[among] for key in reversed(ties)), -scores[among]))]
    return order


def _joined(a: RankedPairs, b: RankedPairs) -> RankedPairs:
    return RankedPairs(
        np.concatenate((a.queries, b.queries)), np.concatenate((a.references, b.references)),
        np.concatenate((a.scores, b.scores)),
    )  # fmt: skip


def _taken(pairs: RankedPairs, which: NDArray[Any]) -> RankedPairs:
    return RankedPairs(pairs.queries[which], pairs.references[which], pairs.scores[which])
