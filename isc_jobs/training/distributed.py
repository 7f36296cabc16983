"""Processes of one training: who we are, and what they exchange."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class World:
    """This process among all of a training."""

    rank: int
    size: int
    device: torch.device


@contextmanager
def join_world() -> Iterator[World]:
    """Join by torchrun's environment: nccl with a GPU per process, else gloo; alone without it.

    A process that fails keeps its connections until it has ended, so that it says why before the others lose it.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if size > 1:
        distributed.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=10))
    yield World(rank, size, device)
    if size > 1:
        distributed.destroy_process_group()


def share_state(tensors: dict[str, Tensor], world: World) -> None:
    """Give every rank the first one's values, in place: ranks begin equal to the bit."""
    if world.size > 1:
        for tensor in tensors.values():
            distributed.broadcast(tensor, 0)


def gather_rows(rows: Tensor, world: World) -> Tensor:
    """All ranks' rows (n, …) in rank order, (n * size, …); gradients reach the own rows only.

    Every rank computes the same loss of the gathered rows, so the sum of the ranks' parameter
    gradients is the gradient of that one loss.
    """
    if world.size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    distributed.all_gather(parts, rows.detach().contiguous())
    parts[world.rank] = rows
    return torch.cat(parts)


def merge_parts(table: Tensor, world: World) -> Tensor:
    """The table of which each rank has filled its rows and left zeros elsewhere, in place; the same on every rank."""
    if world.size > 1:
        distributed.all_reduce(table)
    return table


def any_rank(flag: bool, world: World) -> bool:
    """Whether the flag is up on any rank."""
    if world.size == 1:
        return flag
    votes = torch.tensor([float(flag)], device=world.device)
    distributed.all_reduce(votes)
    return bool(votes.item() > 0)


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks, whose gradient is summed over ranks too."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


def sum_over_ranks(value: Tensor) -> Tensor:
    """Differentiable all-reduce (sum)."""
    result: Tensor = _SumOverRanks.apply(value)
    return result
