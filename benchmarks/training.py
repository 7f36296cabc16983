"""Training input and whole training steps on a CPU, beside AugLy's and torchvision's views and plain PyTorch."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import timm
import torch
from peers import PeerViews
from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from views_speed import as_jpeg

from isc_jobs.spec.profile import load_settings
from isc_jobs.training.distributed import World
from isc_jobs.training.loaders import begin_worker
from isc_jobs.training.loop import Trainer
from isc_jobs.vision.decode import Encoded
from isc_jobs.vision.model import build_model
from isc_jobs.vision.views import hard_view, moderate_view

CPU = torch.device("cpu")
MEMORY = 2000
Step = Callable[[Tensor, Tensor], object]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=Path("examples/photos"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    photos = [as_jpeg(path) for path in sorted(arguments.photos.glob("*.jpg"))]
    print(
        "| pairs of views a second, two loader processes, at | ours | AugLy + torchvision | ratio |\n|---|---|---|---|"
    )
    for size in (256, 512):
        ours, theirs = (
            [
                rate(batches(data(photos, size), 16, 2), arguments.steps, lambda *_: None)
                for _ in range(arguments.rounds)
            ]
            for data in (Ours, Theirs)
        )
        print(row(f"{size} px", ours, theirs), flush=True)
    torch.set_num_threads(2)
    steps = {"ours": our_step(), "theirs": plain_step()}
    found: dict[str, list[float]] = {name: [] for name in (*steps, "alone")}
    for _ in range(arguments.rounds):
        for name, data in (("ours", Ours), ("theirs", Theirs)):
            found[name].append(rate(batches(data(photos, 128), 16, 1), arguments.steps, steps[name]))
        ready = list(islice(batches(Ours(photos, 128), 16, 1), 2))
        found["alone"].append(rate(iter(ready * arguments.steps), arguments.steps, steps["ours"]))
    print("\n| training step, lite0 at 128 px, pairs a second | ours | plain PyTorch | ratio |\n|---|---|---|---|")
    print(row("views, model, loss, optimiser", found["ours"], found["theirs"]))
    print(row("model, loss and optimiser alone: the floor", found["alone"], found["theirs"]))


def row(name: str, ours: list[float], theirs: list[float]) -> str:
    """Medians and their ratio."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    return f"| {name} | {mine:.1f} | {other:.1f} | {mine / other:.2f} |"


def rate(loader: Iterator[tuple[Tensor, Tensor]], steps: int, step: Step) -> float:
    """Pairs a second after the first two batches."""
    for pixels, labels in islice(loader, 2):
        step(pixels, labels)
    began, pairs = time.perf_counter(), 0
    for pixels, labels in islice(loader, steps):
        step(pixels, labels)
        pairs += len(labels) // 2
    return pairs / (time.perf_counter() - began)


class Ours(Dataset[tuple[Tensor, Tensor]]):
    """Moderate and hard view as bytes (2, size, size, 3)."""

    def __init__(self, photos: list[bytes], size: int) -> None:
        """With v98's probabilities."""
        self._photos, self._size = photos, size
        views = load_settings("isc21").trainings.v98.views
        assert views is not None
        self._views = views

    def __len__(self) -> int:
        """As many as are asked for."""
        return 1_000_000

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        """A pair with its label."""
        rng = np.random.default_rng(place)
        picture, other = (Encoded(self._photos[(place + n) % len(self._photos)]) for n in (0, 1))
        hard = hard_view(picture, lambda: other, self._size, self._views, rng)
        return torch.from_numpy(np.stack([moderate_view(picture, self._size, rng), hard])), torch.tensor([place] * 2)


class Theirs(Ours):
    """The same as normalised floats (2, 3, size, size) by the peer's chain."""

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        """A pair with its label."""
        peer = PeerViews(self._views, self._size)
        pair = peer(*(self._photos[(place + n) % len(self._photos)] for n in (0, 1)))
        return torch.stack(pair), torch.tensor([place] * 2)


def batches(data: Ours, pairs: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of pairs, rows side by side."""
    return iter(
        DataLoader(data, batch_size=pairs, num_workers=workers, worker_init_fn=begin_worker, collate_fn=_collate)
    )


def _collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([rows for rows, _ in samples]), torch.cat([labels for _, labels in samples])


def our_step() -> Step:
    """The trainer's own step."""
    settings = load_settings("demo", [f"trainings.v83.memory_size={MEMORY}"])
    model = build_model(settings.model, pretrained=True)
    model.train()
    return Trainer(
        model=model, training=settings.trainings.v83, compute=settings.compute, world=World(0, 1, CPU)
    ).train_step


def plain_step() -> Step:
    """Timm's model, a linear head, pytorch-metric-learning's loss, SGD."""
    backbone = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(-1,))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(320, 256, bias=False), nn.BatchNorm1d(256))
    parameters = [*backbone.parameters(), *head.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-6)
    memory = CrossBatchMemory(ContrastiveLoss(pos_margin=0.0, neg_margin=1.0), 256, memory_size=MEMORY)

    def step(pixels: Tensor, labels: Tensor) -> None:
        loss = memory(functional.normalize(head(backbone(pixels)[-1])), labels)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()

    return step


if __name__ == "__main__":
    main()
