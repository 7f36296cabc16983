"""The entropy regulariser of copy detection: each embedding is pushed from its nearest neighbour of another label.

Kozachenko and Leonenko's estimate of differential entropy, as "spreading vectors" (arXiv:1806.03198) and SSCD
(arXiv:2202.10261) use it: -mean over rows of log(distance to the nearest row of another label).
"""

import torch
from torch import Tensor

# Nearer rows count as so near, without a gradient: the same picture under two labels would push without bound.
NEAREST = 1e-4


def koleo_loss(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Scalar loss of normalised rows (b, d) with labels (b,); 0 if all labels are the same.

    Rows are those of the whole batch, gathered from all ranks.
    """
    with torch.no_grad():
        similarity = embeddings @ embeddings.T
        similarity.masked_fill_(labels[:, None] == labels[None, :], -torch.inf)
        best, nearest = similarity.max(dim=1)
        lonely = best.isinf()
    distance = torch.linalg.vector_norm(embeddings - embeddings[nearest], dim=1)
    terms = -torch.log(distance.clamp(min=NEAREST)).masked_fill(lonely, 0.0)
    return terms.sum() / (~lonely).sum().clamp(min=1)
