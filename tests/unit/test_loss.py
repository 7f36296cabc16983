"""The loss equals pytorch-metric-learning's; several processes equal one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional

from isc_jobs.spec.errors import UsageError
from isc_jobs.training.batch_norm import GlooBatchNorm, synchronise
from isc_jobs.training.distributed import World, gather_rows
from isc_jobs.training.loss import contrastive_loss, distances
from isc_jobs.training.memory_bank import MemoryBank

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_equal_the_reference_over_many_steps(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    memory = MemoryBank(40, 16, CPU, dtype)
    reference = CrossBatchMemory(ContrastiveLoss(pos_margin=0.0, neg_margin=1.1), embedding_size=16, memory_size=40)
    reference.embedding_memory = reference.embedding_memory.to(dtype)
    for _ in range(12):
        rows = torch.randn(14, 16, generator=generator, dtype=dtype)
        labels = torch.randint(0, 12, (14,), generator=generator)
        ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        loss = contrastive_loss(functional.normalize(ours), labels, memory, 0.0, 1.1).total
        expected = reference(functional.normalize(theirs), labels)
        torch.autograd.backward(loss)
        torch.autograd.backward(expected)
        assert ours.grad is not None
        torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=0)


def test_equal_embeddings_have_a_finite_gradient() -> None:
    rows = torch.ones(4, 8, requires_grad=True)
    loss = contrastive_loss(functional.normalize(rows), torch.tensor([0, 0, 1, 1]), MemoryBank(8, 8, CPU), 0.0, 1.0)
    torch.autograd.backward(loss.total)
    assert rows.grad is not None
    assert torch.isfinite(rows.grad).all()


def test_a_row_that_is_no_number_makes_the_loss_none_even_without_a_positive() -> None:
    rows = functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))
    rows[3] = torch.nan
    loss = contrastive_loss(rows, torch.tensor([0, 0, 1, 2]), MemoryBank(8, 8, CPU), 0.0, 1.0)
    assert not torch.isfinite(loss.total)


def test_a_margin_that_takes_in_all_pairs_takes_in_none_of_a_row_with_itself() -> None:
    rows = functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)))
    labels = torch.arange(6) // 2
    expected = CrossBatchMemory(ContrastiveLoss(pos_margin=0.0, neg_margin=2.5), embedding_size=8, memory_size=8)
    loss = contrastive_loss(rows, labels, MemoryBank(8, 8, CPU), 0.0, 2.5)
    torch.testing.assert_close(loss.total, expected(rows, labels), atol=1e-6, rtol=0)


def test_a_picture_drawn_twice_as_a_negative_is_no_positive_term_by_rounding() -> None:
    rows = functional.normalize(torch.randn(64, 256, generator=torch.Generator().manual_seed(0)))
    assert len(set((rows * rows).sum(1).tolist())) > 1  # rounding leaves their lengths uneven
    twice = torch.cat([rows, rows + 1e-8])
    loss = contrastive_loss(twice, torch.arange(64).repeat(2), MemoryBank(128, 256, CPU), 0.0, 1.0)
    assert loss.positive.item() == 0.0
    beside = functional.normalize(rows[:1] + 1e-3 * rows[1:2].sign())
    assert distances((rows[:1] * beside).sum()).item() == pytest.approx(0.016, rel=0.05)  # what is near is not 0


def test_statistics_of_half_precision_are_those_of_float32(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/alone", rank=0, world_size=1)
    try:
        x = 40 + torch.randn(64, 3, 40, 40, generator=torch.Generator().manual_seed(0))
        plain, ours = nn.BatchNorm2d(3), GlooBatchNorm(nn.BatchNorm2d(3))
        for dtype in (torch.float16, torch.bfloat16):  # a sum of 102,400 forties is no number of float16
            expected, found = plain(x.to(dtype).float()), ours(x.to(dtype))
            assert found.dtype == dtype
            torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)
            torch.testing.assert_close(ours.running_mean, plain.running_mean, atol=1e-3, rtol=1e-5)
    finally:
        torch.distributed.destroy_process_group()


def test_a_memory_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(UsageError, match="memory_size 2 is below the 3 rows"):
        MemoryBank(2, 4, CPU).enter(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long))


def _train(world: World, rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[torch.Tensor]:
    """Three steps on the rank's part of fixed batches (3, 8, 6); the weights."""
    torch.manual_seed(0)
    model = synchronise(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)), world)
    wrapped: nn.Module = (
        nn.parallel.DistributedDataParallel(model, broadcast_buffers=False) if world.size > 1 else model
    )
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    memory = MemoryBank(20, 4, CPU)
    for batch in torch.from_numpy(rows):
        part = slice(world.rank * 8 // world.size, (world.rank + 1) * 8 // world.size)
        labels = gather_rows(torch.arange(8)[part] // 2, world)
        gathered = gather_rows(functional.normalize(wrapped(batch[part])), world)
        loss = contrastive_loss(gathered, labels, memory, 0.0, 1.0).total
        optimiser.zero_grad()
        torch.autograd.backward(loss * world.size)
        optimiser.step()
    return [tensor.detach() for tensor in (*model.state_dict().values(), memory.embeddings)]


def _process(rank: int, folder: str, rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(_train(World(rank, 2, CPU), rows), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_gloo_processes_equal_one_with_the_same_global_batch(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 8, 6)).astype(np.float32)
    expected = _train(World(0, 1, CPU), rows)
    spawn(_process, (str(tmp_path), rows), nprocs=2)  # type: ignore[no-untyped-call]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
