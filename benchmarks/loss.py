"""The loss and memory bank beside pytorch-metric-learning's: forward and backward, in one run, as a ratio."""

import time

import torch
from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory
from torch.nn import functional

from isc_jobs.training.loss import contrastive_loss
from isc_jobs.training.memory_bank import MemoryBank

BATCH, SIZE, DIMENSIONS, ROUNDS = 256, 20_000, 256, 5


def main() -> None:
    """Print the median seconds of both and their ratio."""
    ours = MemoryBank(SIZE, DIMENSIONS, torch.device("cpu"))
    theirs = CrossBatchMemory(ContrastiveLoss(pos_margin=0.0, neg_margin=1.0), DIMENSIONS, memory_size=SIZE)
    for _ in range(SIZE // BATCH):
        rows, labels = torch.randn(BATCH, DIMENSIONS), torch.randint(0, 5000, (BATCH,))
        ours.enter(functional.normalize(rows), labels)
        theirs.add_to_memory(functional.normalize(rows), labels, BATCH)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        labels = torch.randint(0, 5000, (BATCH,))
        for kind in (0, 1):
            rows = torch.randn(BATCH, DIMENSIONS, requires_grad=True)
            started = time.perf_counter()
            unit = functional.normalize(rows)
            loss = contrastive_loss(unit, labels, ours, 0.0, 1.0).total if kind == 0 else theirs(unit, labels)
            torch.autograd.backward(loss)
            seconds[kind].append(time.perf_counter() - started)
    medians = [sorted(times)[ROUNDS // 2] for times in seconds]
    print(
        f"isc-jobs {medians[0]:.3f} s, pytorch-metric-learning {medians[1]:.3f} s, ratio {medians[1] / medians[0]:.2f}"
    )


if __name__ == "__main__":
    main()
