"""The loss and memory bank beside pytorch-metric-learning's, forward and backward: time and peak memory."""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable

import torch
from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory
from torch import Tensor
from torch.nn import functional

from isc_jobs.training.loss import contrastive_loss
from isc_jobs.training.memory_bank import MemoryBank

BATCH, SIZE, DIMENSIONS, CLASSES = 256, 20_000, 256, 5000
Step = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    """Print medians of interleaved rounds and the peak of each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        nothing, ours, theirs = (pool.apply(peak, (name,)) for name in ("nothing", *STEPS))
    steps = {name: make() for name, make in STEPS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in STEPS}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(measured(step))
    mine, other = (1000 * statistics.median(values) for values in seconds.values())
    print(
        "| loss and memory bank, 256 x 20,000 x 256 | isc-jobs | pytorch-metric-learning | ratio |\n|---|---|---|---|"
    )
    print(f"| forward and backward, ms | {mine:.1f} | {other:.1f} | {other / mine:.2f} |")
    print(f"| peak memory beyond the bank, MB | {ours - nothing} | {theirs - nothing} | "
          f"{(theirs - nothing) / max(1, ours - nothing):.1f} |")  # fmt: skip


def isc_jobs() -> Step:
    """Ours, with a full bank."""
    memory = MemoryBank(SIZE, DIMENSIONS, torch.device("cpu"))
    fill(memory.enter)
    return lambda rows, labels: contrastive_loss(rows, labels, memory, 0.0, 1.0).total


def pytorch_metric_learning() -> Step:
    """The peer's, with a full bank."""
    loss = CrossBatchMemory(ContrastiveLoss(pos_margin=0.0, neg_margin=1.0), DIMENSIONS, memory_size=SIZE)
    fill(lambda rows, labels: loss.add_to_memory(rows, labels, len(rows)))
    step: Step = loss
    return step


STEPS: dict[str, Callable[[], Step]] = {"isc-jobs": isc_jobs, "pytorch-metric-learning": pytorch_metric_learning}


def fill(enter: Callable[[Tensor, Tensor], object]) -> None:
    """A bank of embeddings as in a training: classes apart, their members near one another."""
    for _ in range(-(-SIZE // BATCH)):
        enter(*batch())


def batch() -> tuple[Tensor, Tensor]:
    """Normalised embeddings (256, 256) and labels: what is alike is near, and one in a hundred others is too."""
    labels = torch.randint(0, CLASSES, (BATCH,))
    centres = torch.randn(CLASSES, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    centres[:, :8] += 2.5 * torch.randn(CLASSES // 10, 8, generator=torch.Generator().manual_seed(1)).repeat(10, 1)
    return functional.normalize(centres[labels] + 0.6 * torch.randn(BATCH, DIMENSIONS)), labels


def measured(step: Step) -> float:
    """Seconds of one forward and backward pass."""
    rows, labels = batch()
    rows.requires_grad_()
    started = time.perf_counter()
    torch.autograd.backward(step(rows, labels))
    return time.perf_counter() - started


def peak(name: str) -> int:
    """Most memory that three steps took, MB, with a bank and without ("nothing": a bank alone)."""
    step = STEPS[name]() if name in STEPS else isc_jobs()
    if name in STEPS:
        for _ in range(3):
            measured(step)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
