"""Samples of small real photos in shards, as download leaves them, and a small model of real layers."""

import io
import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Compute, Training
from isc_jobs.training.dataset import Negatives, Pairs, Samples
from isc_jobs.training.distributed import World
from isc_jobs.training.loop import Hooks, Trainer
from isc_jobs.vision.model import DescriptorModel
from isc_jobs.vision.shards import Picture, ShardSet, write_shard

PHOTOS = sorted((Path(__file__).parents[2] / "examples/photos").glob("*.jpg"))
COUNTS = {"train": 24, "reference": 20, "query_phase1": 10}
TRUTH = [(f"Q{n:05d}", f"R{2 * n:06d}" if n < 8 else "") for n in range(10)]  # every second reference, two without
# The recipe's values, but for sizes: a memory that wraps within a batch, and three steps or two an epoch. At the full
# rates so small a batch would multiply any rounding by ten in every few steps; a decay of 1e-6 would not show.
SCALED = {
    "v83": ["sample_size=24", "epochs=18", "schedule_epochs=20", "restart_epoch=9", "global_batch=8",
            "memory_size=70", "input_size=32", "lr=0.001", "weight_decay=0.01"],
    "v86": ["sample_size=24", "epochs=17", "schedule_epochs=20", "global_batch=8",
            "memory_size=70", "input_size=32", "lr=0.001", "weight_decay=0.01"],
    "v98": ["sample_size=24", "epochs=17", "schedule_epochs=20", "global_batch=8",
            "memory_size=70", "input_size=32", "lr=0.002", "weight_decay=0.01"],
    "v107": ["epochs=25", "schedule_epochs=25", "global_batch=4", "memory_size=50", "extra_negatives=3",
             "input_size=32", "weight_decay=0.01"],
}  # fmt: skip


class Folder:
    """Files of a folder, as a stage's output gives them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name


def write_photos(root: Path, side: int = 96) -> Path:
    """Photos no larger than ``side`` in two shards a set."""
    (root / "shards").mkdir(parents=True)
    photos, sets = iter(PHOTOS), {}
    letters = {"train": "T%06d", "reference": "R%06d", "query_phase1": "Q%05d"}
    for name, count in COUNTS.items():
        pictures = [_picture(letters[name] % n, next(photos), side) for n in range(count)]
        files = [f"shards/{name}-{n:05d}.tar" for n in range(2)]
        for file, part in zip(files, (pictures[: count // 2], pictures[count // 2 :]), strict=True):
            write_shard(root / file, part)
        sets[name] = {"shards": files, "count": count}
    (root / "manifest.json").write_text(json.dumps({"sets": sets}))
    return root


def _picture(id_: str, path: Path, side: int) -> Picture:
    image, data = Image.open(path).convert("RGB"), io.BytesIO()
    image.thumbnail((side, side))
    image.save(data, "JPEG", quality=90)
    return Picture(id_, "jpg", data.getvalue(), *image.size)


def training(name: str, *overrides: str) -> Training:
    """A training of the full-size recipe, scaled down."""
    chosen = [f"trainings.{name}.{value}" for value in (*SCALED[name], *overrides)]
    found: Training = getattr(load_settings("isc21", chosen).trainings, name)
    return found


def compute(*overrides: str) -> Compute:
    """The demo's, with loading in the own process."""
    chosen = [f"compute.{value}" for value in ("loader_workers=0", "threads=1", *overrides)]
    return load_settings("demo", chosen).compute


def samples(chosen: Training, root: Path, truth: list[tuple[str, str]] = TRUTH) -> Samples:
    """Of the photos."""
    train, references, queries = (ShardSet(Folder(root), name) for name in COUNTS)
    return Samples(chosen, train, Pairs(queries, references, truth), Negatives(references, truth))


def silent() -> Hooks:
    """Hooks of a training that nobody watches."""
    return Hooks(progress=lambda *_, **__: None, save=lambda *_: None, stop_requested=lambda: False, log=lambda _: None)


class DoubleModel(DescriptorModel):
    """The descriptor model in float64, in which a step can be followed exactly."""

    def forward(self, x_bchw: Tensor) -> Tensor:
        exact = ((x_bchw.double() + 1) * 127.5).round() / 127.5 - 1  # the pixels without float32's rounding
        features = self.backbone(exact)[-1].clamp(min=1e-6).mean(dim=(-2, -1))
        return functional.normalize(self.bn(self.fc(features)))


def build_trainer(chosen: Training, *, world: World, machine: Compute | None = None, double: bool = False) -> Trainer:
    """A trainer of a model with 80,000 random weights, the same for all."""
    torch.manual_seed(0)
    kind = DoubleModel if double else DescriptorModel
    model = kind("test_efficientnet", 16, 1.0)
    if double:
        model.double()
    return Trainer(model=model, training=chosen, compute=machine or compute(), world=world)
