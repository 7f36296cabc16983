"""Contrastive loss of a batch against the memory bank.

Pairs are (batch row, memory row): equal labels are positives, others negatives, and no row is paired with
itself. The terms are relu(d - positive margin) and relu(negative margin - d) of the Euclidean distance d
of normalised embeddings; each kind is averaged over its non-zero terms (arXiv:2112.04323, section 3.2).
"""

from typing import NamedTuple

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
    distance = euclidean(embeddings, memory.embeddings[: memory.filled])
    same = labels[:, None] == memory.labels[None, : memory.filled]
    rows = torch.arange(len(labels), device=labels.device)
    others = torch.ones_like(same)
    others[rows, own] = False
    positive = _mean_of_nonzero(torch.relu(distance - positive_margin), same & others)
    negative = _mean_of_nonzero(torch.relu(negative_margin - distance), ~same)
    return Loss(positive + negative, positive, negative, torch.zeros_like(positive))


def euclidean(x: Tensor, y: Tensor) -> Tensor:
    """Distances (n, m) of normalised rows (n, d) and (m, d); the gradient at distance 0 is 0.

    What rounding leaves of distance 0 is 0: an extra negative drawn twice for a batch would else be a positive term,
    of no size but counted, and chance would decide it.
    """
    squared = 2.0 - 2.0 * (x @ y.T)
    zero = squared < _ROUNDING * torch.finfo(squared.dtype).eps
    return torch.sqrt(squared.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def _mean_of_nonzero(terms: Tensor, pairs: Tensor) -> Tensor:
    counted = pairs & (terms > 0)
    return (terms * counted).sum() / counted.sum().clamp(min=1)
