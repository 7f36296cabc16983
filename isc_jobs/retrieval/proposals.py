"""Rows that may be nearest, found by quick arithmetic, with bounds between which their exact scores lie.

Two ways: faiss in float32, on GPUs where it finds some; and, for large searches on processors that multiply bfloat16
in hardware, torch's product in bfloat16, several times as fast. What is found in the end is the same.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from isc_jobs.retrieval.rows import Matrix, Wide, by_parts, lengths

_GROUP = 32  # scores of which the largest is looked at first
_CACHED = 10_000_000  # products, which a processor's cache holds
_LARGE, _WORTHWHILE = 200_000_000, 10_000_000  # scores: torch takes seconds to import, if it is not yet
_LONGEST = 1e9  # of queries and rows whose products are far from float32's end
_PROCESSOR = Path("/proc/cpuinfo")
_SINGLE = np.finfo(np.float32)
_HALF_UNIT = 2.0**-8  # relative error of rounding to bfloat16
_OFFSETS = 3  # columns that hold a number to float32's precision
_ALIKE = 0.1  # share of the mean row in the rows' squared length from which it is left out
_ROWS_AT_ONCE = 4096


class Proposals(NamedTuple):
    """(n, w) positions of rows, -1 where there is none, and bounds of their scores, both descending along w.

    Whatever is not proposed scores at most the last ``highest``.
    """

    positions: NDArray[np.int64]
    highest: Wide
    lowest: Wide


class Proposer(Protocol):
    """Searches fixed rows."""

    spare: int  # neighbours to ask for beyond those wanted, which mostly settles what is near the edge

    def propose(self, queries: Matrix, width: int) -> Proposals:
        """The ``width`` rows that seem nearest to each query."""
        ...


class FaissProposer:
    """Flat faiss index in float32."""

    spare = 4

    def __init__(self, rows: Matrix, *, squared_distance: bool) -> None:
        """Score: the inner product, or -(squared distance)."""
        self._sign = -1 if squared_distance else 1
        self._index: Any = (faiss.IndexFlatL2 if squared_distance else faiss.IndexFlatIP)(rows.shape[1])
        if hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0:
            self._index = faiss.index_cpu_to_all_gpus(self._index)
        self._index.add(np.ascontiguousarray(rows, np.float32))
        self._longest = lengths(rows).max(initial=0)

    def propose(self, queries: Matrix, width: int) -> Proposals:
        """As faiss ranks them; positions are -1 where float32 overflows."""
        values, positions = self._index.search(np.ascontiguousarray(queries, np.float32), width)
        doubt = rounding(queries, self._longest)[:, None]
        scores = self._sign * values.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity less infinity: nothing is known
            return Proposals(positions, scores + doubt, scores - doubt)


class Bfloat16Proposer:
    """Products of bfloat16: of each query, those of the groups with the largest products.

    The nearest w rows lie in at most w groups, and no other group has a larger largest product. Rows that are much
    alike differ in what bfloat16 would round away; what they have in common is then left out of the products:
    qr = (q - c)(r - c) + (cr - cc) + cq, where c is the mean row. The second term stands in columns of its own, and
    the third is the query's. Otherwise c is 0.
    """

    spare = 10

    def __init__(self, rows: Matrix, *, squared_distance: bool) -> None:
        """Score: the inner product, or -(squared distance), of rows of about the same length."""
        import torch

        self._torch, self._count = torch, len(rows)
        self._groups = -(-len(rows) // _GROUP)
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        alike = float(mean @ mean) > _ALIKE * float(rows[0] @ rows[0])
        self._common, self._offsets = (mean, _OFFSETS) if alike else (np.zeros_like(mean), 0)
        self._rows = torch.zeros((_GROUP * self._groups, rows.shape[1] + self._offsets), dtype=torch.bfloat16)
        norms = np.empty((len(rows), 5))
        by_parts(len(rows), _ROWS_AT_ONCE, lambda part: self._enter(part, rows[part], norms[part]))
        self._row, self._half, self._difference, self._lost, self._unsaid = norms.max(axis=0)
        self._squares = (norms[:, 0].min() ** 2, self._row**2) if squared_distance else None

    def _enter(self, part: slice, rows: Matrix, norms: Wide) -> None:
        """Differences and shares of some rows; lengths of what was given, entered, meant and lost, the share's rest."""
        differences, entered, rest = self._without_common(rows), self._rows[part], np.zeros(len(rows))
        entered[:, : rows.shape[1]] = self._torch.from_numpy(differences)
        if self._offsets:
            common = self._common.astype(np.float64)
            rest = (rows @ common) - common @ common
        for column in range(rows.shape[1], entered.shape[1]):  # each takes up what those before have rounded away
            entered[:, column] = self._torch.from_numpy(rest)
            rest = rest - entered[:, column].double().numpy()
        halves = entered.float().numpy()
        norms[:, 0], norms[:, 1] = lengths(rows), lengths(halves)
        norms[:, 2] = lengths(differences) if self._offsets else norms[:, 0]
        norms[:, 3], norms[:, 4] = lengths(differences - halves[:, : rows.shape[1]]), np.abs(rest)

    def _without_common(self, rows: Matrix) -> Matrix:
        return rows - self._common if self._offsets else np.ascontiguousarray(rows, np.float32)

    def propose(self, queries: Matrix, width: int) -> Proposals:
        """As bfloat16 ranks them."""
        positions, products = np.empty((len(queries), width), np.int64), np.empty((len(queries), width))
        differences = self._without_common(queries)
        halves = self._torch.ones((len(queries), self._rows.shape[1]), dtype=self._torch.bfloat16)
        halves[:, : queries.shape[1]] = self._torch.from_numpy(differences)
        step = max(32, _CACHED // len(self._rows))
        held = self._torch.empty((min(step, len(queries)), len(self._rows)), dtype=self._torch.bfloat16)
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            some = halves[part]
            positions[part], products[part] = self._largest(
                self._torch.mm(some, self._rows.T, out=held[: len(some)]), width
            )
        highest, lowest = self._between(queries, differences, halves.float().numpy(), products)
        if self._squares is not None:
            least, most = self._squares
            own = lengths(queries)[:, None] ** 2
            slack = 1e-12 * (own + most)
            highest, lowest = 2 * highest - own - least + slack, 2 * lowest - own - most - slack
        return Proposals(positions, highest, lowest)

    def _largest(self, products: Any, width: int) -> tuple[NDArray[np.int64], Wide]:
        """Positions and products (n, rows); a group is every ``groups``-th row, so that they are compared at once."""
        if self._count < products.shape[1]:
            products[:, self._count :] = -self._torch.inf
        grouped = products.view(len(products), _GROUP, self._groups)
        # As integers, numbers that are not negative have the same order, and negative ones are below them.
        peaks = grouped.view(self._torch.int16).amax(1).topk(min(width, self._groups), 1)
        if (peaks.values[:, -1] < 0).any():
            peaks = grouped.amax(1).topk(min(width, self._groups), 1)
        chosen = peaks.indices
        best, place = grouped.gather(2, chosen[:, None].expand(-1, _GROUP, -1)).flatten(1).topk(width, 1)
        member, group = place // chosen.shape[1], place % chosen.shape[1]
        positions = member * self._groups + chosen.gather(1, group)
        return positions.numpy(), best.double().numpy()

    def _between(self, queries: Matrix, differences: Matrix, halves: Matrix, products: Wide) -> tuple[Wide, Wide]:
        """Bounds of exact products: what rounding both sides took, what summing in float32 did, and the result's."""
        lost = lengths(differences - halves[:, : queries.shape[1]])
        given = lengths(queries)
        meant = lengths(differences) if self._offsets else given
        base = lost * self._half + meant * self._lost + self._unsaid
        base += (halves.shape[1] + 8) * (float(_SINGLE.eps) * lengths(halves) * self._half + float(_SINGLE.tiny))
        base += 1.01 * float(_SINGLE.eps) * meant * self._difference  # both were rounded to float32
        base += 1e-12 * (given + self._row) * self._row  # sums in float64
        doubt = base[:, None] + 1.01 * _HALF_UNIT * np.abs(products)
        shifted = products + (queries @ self._common.astype(np.float64))[:, None]
        return shifted + doubt, shifted - doubt


def make_proposer(rows: Matrix, queries: Matrix, *, squared_distance: bool) -> Proposer:
    """The quicker one for these queries, of those that this machine and the numbers allow."""
    sizes = lengths(rows)
    alike = not squared_distance or sizes.max(initial=0) ** 2 - sizes.min(initial=np.inf) ** 2 < 1e-3
    least = _WORTHWHILE if "torch" in sys.modules else _LARGE
    longest = max(sizes.max(initial=0), lengths(queries).max(initial=0))
    if len(queries) * len(rows) >= least and alike and longest < _LONGEST and _multiplies_bfloat16():
        return Bfloat16Proposer(rows, squared_distance=squared_distance)
    return FaissProposer(rows, squared_distance=squared_distance)


def _multiplies_bfloat16() -> bool:
    """Whether torch is here, and the processor has instructions for it, and faiss no GPU."""
    if find_spec("torch") is None or (hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0):
        return False
    flags = _PROCESSOR.read_text().split() if _PROCESSOR.exists() else []
    return "amx_bf16" in flags or "avx512_bf16" in flags


def rounding(queries: Matrix, longest: float) -> Wide:
    """(n,) the most by which a float32 score of a query may be off, in whatever order its products are summed.

    d products lose at most d units of rounding of |q||r| (Higham, Accuracy and Stability, 2002, section 3.1).
    Infinite where float32 may overflow. ``longest``: the largest length of a row.
    """
    sizes = (lengths(queries) + longest) ** 2
    bound = (queries.shape[1] + 8) * (float(_SINGLE.eps) / 2 * sizes + float(_SINGLE.tiny))
    return np.where(sizes < float(_SINGLE.max) / 4, bound, np.inf)
