"""Batches of hard negatives: images that lie close together share a batch, so that they are told apart.

Mined from the descriptors that a training starts from, as hard negatives are for dense retrieval
(arXiv:2007.00808, arXiv:2407.15831), here grouped so that an epoch still holds each image once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


@dataclass(frozen=True)
class Neighbours:
    """Of each of n images its k nearest others (n, k), nearest first, and how many of these are its twins (n,).

    Twins are so near that they may show the same picture: as negatives they would be false ones.
    """

    nearest: NDArray[np.int32]
    twins: NDArray[np.int32]


def group_order(order: NDArray[np.int64], neighbours: Neighbours, size: int, rng: Generator) -> NDArray[np.int64]:
    """All images of ``order`` (n,), once each, in groups of ``size``: an image and its nearest that are still free.

    An image and its twin share a group by chance at most. Images whose neighbours are all taken are grouped as they
    come; n % size of them stand at the end.
    """
    free, groups, rest = bytearray(b"\1") * len(order), [], []
    for anchor in order.tolist():
        if not free[anchor]:
            continue
        group = _nearest_free(anchor, neighbours, size, free)
        if len(group) == size:
            groups.append(group)
        else:
            rest += group
        for image in group:
            free[image] = 0
    whole = len(rest) - len(rest) % size
    groups += [rest[start : start + size] for start in range(0, whole, size)]
    shuffled = np.array(groups, np.int64).reshape(-1, size)[rng.permutation(len(groups))]
    return np.concatenate([shuffled.ravel(), np.array(rest[whole:], np.int64)])


def _nearest_free(anchor: int, neighbours: Neighbours, size: int, free: bytearray) -> list[int]:
    group, kept_out = [anchor], set(_twins(anchor, neighbours))
    for image in neighbours.nearest[anchor].tolist():
        if len(group) == size:
            break
        twins = _twins(image, neighbours)
        if free[image] and image not in kept_out and not set(twins).intersection(group):
            group.append(image)
            kept_out.update(twins)
    return group


def _twins(image: int, neighbours: Neighbours) -> list[int]:
    found: list[int] = neighbours.nearest[image, : neighbours.twins[image]].tolist()
    return found
