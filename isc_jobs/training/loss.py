"""Contrastive loss of a batch against the memory bank.

Pairs are (batch row, memory row): equal labels are positives, others negatives, and no row is paired with
itself. The terms are relu(d - positive margin) and relu(negative margin - d) of the Euclidean distance d
of normalised embeddings; each kind is averaged over its non-zero terms (arXiv:2112.04323, section 3.2).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from isc_jobs.training.memory_bank import MemoryBank

# What rounding leaves of a squared distance 0, in units of the last place of 1: 17 were seen with 256 dimensions.
# In float32, what is nearer than .003 is at distance 0.
_ROUNDING = 64


class Loss(NamedTuple):
    """Scalars: ``total = positive + negative + weight * koleo``."""

    total: Tensor
    positive: Tensor
    negative: Tensor
    koleo: Tensor  # the entropy regulariser before its weight; 0 where it has none


def contrastive_loss(
    embeddings: Tensor, labels: Tensor, memory: MemoryBank, positive_margin: float, negative_margin: float
) -> Loss:
    """Enter a batch (b, d) with labels (b,) into the memory, then its loss against all of it."""
    own = memory.enter(embeddings, labels)
    bank, bank_labels = memory.embeddings[: memory.filled], memory.labels[: memory.filled]
    others = labels[:, None] == bank_labels
    others[torch.arange(len(labels), device=labels.device), own] = False
    distance, rows, columns = _Distances.apply(embeddings, bank, others, own, negative_margin)
    same = labels[rows] == bank_labels[columns]
    positive = _mean_of_nonzero(torch.relu(distance[same] - positive_margin))
    negative = _mean_of_nonzero(torch.relu(negative_margin - distance[~same]))
    return Loss(positive + negative, positive, negative, torch.zeros_like(positive))


class _Distances(torch.autograd.Function):
    """Distances (p,) of the pairs that count, with their rows and columns; only the batch's rows have a gradient.

    Those are the positives, a mask (b, m), and what is nearer than the margin or no number. Other negatives have
    neither loss nor gradient, and are nearly all: one product of matrices finds those that have, and only they are
    differentiated.
    """

    @staticmethod
    def forward(
        ctx: Any, x_bd: Tensor, bank_md: Tensor, positives: Tensor, own: Tensor, margin: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``own``: the column of each row itself, which makes no pair."""
        product = x_bd @ bank_md.T
        product[torch.arange(len(own), device=own.device), own] = -torch.inf
        far = product <= 1 - margin * margin / 2 - _ROUNDING * torch.finfo(product.dtype).eps
        rows, columns = (~far | positives).nonzero(as_tuple=True)
        distance = distances(product[rows, columns])
        ctx.save_for_backward(bank_md, rows, columns, distance)
        ctx.batch = len(x_bd)
        ctx.mark_non_differentiable(rows, columns)
        return distance, rows, columns

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of sqrt(2 - 2xy) by x: -y / distance; 0 at distance 0."""
        bank_md, rows, columns, distance = ctx.saved_tensors
        weights = torch.where(distance > 0, -grads[0] / distance, 0.0)
        sparse = torch.sparse_coo_tensor(
            torch.stack((rows, columns)), weights, (int(ctx.batch), len(bank_md)), check_invariants=False
        )
        return sparse @ bank_md, None, None, None, None


def distances(product: Tensor) -> Tensor:
    """Euclidean distances of normalised rows by their inner products.

    What rounding leaves of distance 0 is 0: an extra negative drawn twice for a batch would else be a positive term,
    of no size but counted, and chance would decide it.
    """
    squared = 2.0 - 2.0 * product
    return torch.sqrt(squared.masked_fill(squared < _ROUNDING * torch.finfo(squared.dtype).eps, 0.0))


def _mean_of_nonzero(terms: Tensor) -> Tensor:
    return terms.sum() / (terms > 0).sum().clamp(min=1)
