"""Optimiser, learning rate and the order of samples."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import nn

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.settings import Training
from isc_jobs.training.hard_groups import Neighbours, group_order


def learning_rate(training: Training, epoch: int) -> float:
    """Constant, or lr * (1 - epoch / schedule_epochs)."""
    return training.lr if training.lr_schedule == "constant" else training.lr * (1 - epoch / training.schedule_epochs)


def seed_of(training: Training, epoch: int) -> int:
    """The seed in force: the second one from ``restart_epoch`` on."""
    restarted = training.restart_epoch is not None and epoch >= training.restart_epoch
    return training.seeds[1 if restarted else 0]


def build_optimiser(model: nn.Module, training: Training) -> torch.optim.SGD:
    """SGD with momentum; one-dimensional parameters do not decay."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=training.lr, momentum=training.momentum)


@dataclass(frozen=True)
class Batches:
    """A rank's samples of every step from ``first`` on, as lists of (epoch, sample index).

    Each epoch is a uniform shuffle (as many as ``sample_size`` needs), or one of groups of ``neighbours`` where
    ``hard_group`` asks for them, its last incomplete global batch dropped; rank r takes the r-th part of each global
    batch, so the gathered batch does not depend on the number of processes.
    """

    training: Training
    samples: int
    rank: int
    world_size: int
    first: int = 0
    neighbours: Neighbours | None = None

    def __post_init__(self) -> None:
        """Raise UsageError if processes do not divide the batch, DataError if there is no full batch."""
        if self.training.global_batch % self.world_size:
            raise UsageError(
                f"global_batch {self.training.global_batch} is not divisible by {self.world_size} processes"
            )
        if self.samples == 0 or self.steps_per_epoch == 0:
            raise DataError(
                f"{self.samples} training {self.training.samples} are fewer than one global batch of "
                f"{self.training.global_batch}: lower global_batch or give more data"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches of an epoch."""
        return self.training.steps_per_epoch(self.samples)

    def __len__(self) -> int:
        """Steps that are left."""
        return self.training.epochs * self.steps_per_epoch - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """The rank's part of each global batch."""
        local = self.training.global_batch // self.world_size
        order, shuffled = np.empty(0, np.int64), -1
        for step in range(self.first, self.training.epochs * self.steps_per_epoch):
            epoch, within = divmod(step, self.steps_per_epoch)
            if epoch != shuffled:
                order = self._order(epoch)
                shuffled = epoch
            start = within * self.training.global_batch + self.rank * local
            yield [(epoch, int(index)) for index in order[start : start + local]]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([seed_of(self.training, epoch), epoch])
        wanted = self.training.sample_size or self.samples
        return np.concatenate([self._shuffle(rng) for _ in range(-(-wanted // self.samples))])[:wanted]

    def _shuffle(self, rng: Generator) -> NDArray[np.int64]:
        """Each sample once."""
        order = rng.permutation(self.samples)
        if self.training.hard_group == 1:
            return order
        assert self.neighbours is not None  # found before a training that groups by them
        return group_order(order, self.neighbours, self.training.hard_group, rng)
