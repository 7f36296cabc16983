"""The four trainings, step by step, against the recipe written down plainly; several processes against one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch
from photo_samples import build_trainer, samples, training
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory
from torch import Tensor, nn
from torch.nn import functional

from isc_jobs.spec.settings import Training
from isc_jobs.training.dataset import Samples
from isc_jobs.training.distributed import World
from isc_jobs.training.loop import Hooks, Trainer, train
from isc_jobs.training.schedule import Batches

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As a stage sets it; these layers are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Recipe:
    """What the recipe says of a training, in its own words, scaled as ``photo_samples.SCALED`` is."""

    rate: float
    linear_over: int | None  # epochs
    negative_margin: float
    memory: int
    emptied_at: int | None = None  # epoch of v83's second call


RECIPES = {
    "v83": Recipe(0.001, None, 1.0, 70, emptied_at=9),
    "v86": Recipe(0.001, None, 1.0, 70),
    "v98": Recipe(0.002, 20, 1.0, 70),
    "v107": Recipe(0.5 / 16, 25, 1.1, 50),
}


class PlainModel(nn.Module):
    """Feature map, average, linear projection, batch norm, unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("test_efficientnet", features_only=True)
        self.fc = nn.Linear(64, 16, bias=False)
        self.bn = nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)[-1].clamp(min=1e-6)
        return functional.normalize(self.bn(self.fc(functional.adaptive_avg_pool2d(features, 1).flatten(1))))


class Distance(LpDistance):  # type: ignore[misc]
    """Euclidean; the same picture twice in a batch is at distance 0, which rounding must not make a positive term."""

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        distance = torch.cdist(query_emb, ref_emb, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.masked_fill(distance < torch.finfo(distance.dtype).eps ** 0.5, 0)


class Plain:
    """A training of one process by the recipe."""

    def __init__(self, recipe: Recipe, start: dict[str, Tensor], dtype: torch.dtype) -> None:
        self.recipe, self.dtype = recipe, dtype
        self.model = PlainModel().to(dtype).train()
        self.model.load_state_dict(start)
        loss = ContrastiveLoss(pos_margin=0.0, neg_margin=recipe.negative_margin, distance=Distance())
        self.loss = CrossBatchMemory(loss, embedding_size=16, memory_size=recipe.memory)
        flat = [p for p in self.model.parameters() if p.ndim == 1]
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": flat, "weight_decay": 0.0}]
        self.optimiser = torch.optim.SGD(groups, lr=recipe.rate, momentum=0.9)

    def begin(self, epoch: int) -> None:
        if epoch == self.recipe.emptied_at:
            self.loss.reset_queue()
        fall = 1 - epoch / self.recipe.linear_over if self.recipe.linear_over else 1
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * fall

    def step(self, pixels: Tensor, labels: Tensor) -> float:
        x = (pixels.permute(0, 3, 1, 2).to(self.dtype) / 255 - 0.5) / 0.5
        self.optimiser.zero_grad()
        loss = self.loss(self.model(x), labels)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())


class Follower(Hooks):
    """Takes each step of a trainer's anew, from the same rows, and compares."""

    def __init__(self, trainer: Trainer, rows: Samples, plain: Plain, tolerance: float) -> None:
        self.trainer, self.rows, self.plain, self.tolerance = trainer, rows, plain, tolerance
        self.batches = list(Batches(trainer.training, len(rows), 0, 1))
        self.epoch, self.wrapped, self.steps = -1, False, 0
        super().__init__(progress=self.follow, save=lambda *_: None, stop_requested=lambda: False, log=print)

    def follow(self, step: int, _total: int, *, loss: float, lr: float) -> None:
        keys = self.batches[step - 1]
        if keys[0][0] != self.epoch:
            self.epoch = keys[0][0]
            self.plain.begin(self.epoch)
        parts = [self.rows[key] for key in keys]
        expected = self.plain.step(torch.cat([pixels for pixels, _ in parts]), torch.cat([y for _, y in parts]))
        assert lr == pytest.approx(self.plain.optimiser.param_groups[0]["lr"], rel=1e-12)
        assert loss == pytest.approx(expected, abs=self.tolerance)
        memory, reference = self.trainer.memory, self.plain.loss
        filled = memory.filled
        assert (filled == len(memory.labels)) == reference.has_been_filled
        assert memory.pointer == reference.queue_idx
        assert torch.equal(memory.labels[:filled], reference.label_memory[:filled])
        self.close(memory.embeddings[:filled], reference.embedding_memory[:filled])
        self.wrapped |= filled == len(memory.labels) and memory.pointer > 0
        self.steps += 1

    def close(self, ours: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(ours, theirs, atol=self.tolerance, rtol=0)


def follow(
    name: str, small_photos: Path, *, double: bool, tolerance: float, overrides: tuple[str, ...] = ()
) -> Follower:
    chosen: Training = training(name, *overrides)
    trainer = build_trainer(chosen, world=ALONE, double=double)
    rows = samples(chosen, small_photos)
    plain = Plain(RECIPES[name], trainer.model.state_dict(), torch.float64 if double else torch.float32)
    follower = Follower(trainer, rows, plain, tolerance)
    train(trainer, rows, follower)
    for ours, theirs in zip(trainer.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        follower.close(ours, theirs)
    return follower


@pytest.mark.parametrize("name", RECIPES)
def test_fifty_steps_of_each_training_are_the_recipes(name: str, small_photos: Path) -> None:
    followed = follow(name, small_photos, double=True, tolerance=1e-6)
    assert followed.steps >= 50
    assert followed.wrapped


@pytest.mark.parametrize("name", RECIPES)
def test_the_model_that_is_trained_is_the_recipes_too(name: str, small_photos: Path) -> None:
    """In float32, for as long as its rounding stays small."""
    followed = follow(name, small_photos, double=False, tolerance=1e-3, overrides=("epochs=2",))
    assert followed.steps == (4 if name == "v107" else 6)
