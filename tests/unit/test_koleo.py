"""The entropy regulariser is the plain formula, and pushes neighbours of different labels apart."""

import pytest
import torch
from photo_samples import build_trainer, training
from torch import Tensor
from torch.nn import functional

from isc_jobs.training.distributed import World
from isc_jobs.training.koleo import NEAREST, koleo_loss
from isc_jobs.training.loss import contrastive_loss
from isc_jobs.training.memory_bank import MemoryBank

CPU = torch.device("cpu")


def plain(rows: Tensor, labels: list[int]) -> Tensor:
    """-mean log of the distance to the nearest row of another label, row by row."""
    terms = []
    for row, label in zip(rows, labels, strict=True):
        others = [torch.sqrt(((row - other) ** 2).sum()) for other, y in zip(rows, labels, strict=True) if y != label]
        if others:
            terms.append(-torch.log(torch.stack(others).min()))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2, 7], [0] * 6 + [1]])
def test_values_and_gradients_are_the_formulas(labels: list[int]) -> None:
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    loss = koleo_loss(functional.normalize(ours), torch.tensor(labels))
    expected = plain(functional.normalize(theirs), labels)
    torch.autograd.backward(loss)
    torch.autograd.backward(expected)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-12, rtol=0)


def test_a_batch_of_one_label_has_nothing_to_push() -> None:
    rows = torch.randn(4, 5, requires_grad=True)
    loss = koleo_loss(functional.normalize(rows), torch.zeros(4, dtype=torch.long))
    torch.autograd.backward(loss)
    assert rows.grad is not None
    assert loss.item() == 0
    assert not rows.grad.any()


def test_the_same_picture_under_two_labels_is_not_pushed_without_bound() -> None:
    row = torch.tensor([0.6, 0.8, 0.0])
    rows = torch.stack([row, row, row + torch.tensor([0.0, 0.0, 1e-6])]).requires_grad_()
    loss = koleo_loss(rows, torch.arange(3))
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(-torch.tensor(NEAREST).log().item())
    assert rows.grad is not None
    assert not rows.grad.any()


def test_descent_spreads_the_rows() -> None:
    rows = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)) * 0.1 + torch.tensor([1.0, 0, 0, 0])
    rows.requires_grad_()
    optimiser = torch.optim.SGD([rows], lr=0.3)
    losses = []
    for _ in range(50):
        loss = koleo_loss(functional.normalize(rows), torch.arange(32))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1  # nearest neighbours are e times further on the average


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_step_adds_it_with_its_weight(weight: float) -> None:
    trainer = build_trainer(training("v86", f"koleo_weight={weight}"), world=World(0, 1, CPU))
    pixels = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) // 2
    loss = trainer.train_step(pixels, labels)
    rows = trainer.memory.embeddings[:8]
    pairs = contrastive_loss(rows, labels, MemoryBank(8, 16, CPU), 0.0, 1.0).total
    koleo = koleo_loss(rows, labels)
    torch.testing.assert_close(loss.total, pairs + weight * koleo)
    torch.testing.assert_close(loss.koleo, koleo if weight else torch.tensor(0.0))
