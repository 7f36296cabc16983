"""The tables that an estimate reads: what was measured, what is published, what is assumed."""

from importlib import resources
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict

from isc_jobs.estimate.bounds import Bounds
from isc_jobs.spec.errors import UsageError


def _bounds(value: Any) -> Any:
    return Bounds(*map(float, value)) if isinstance(value, list) else value


_Span = Annotated[Bounds, BeforeValidator(_bounds)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Backbone(_Table):
    """The descriptor model on a backbone."""

    forward_gflop: dict[int, float]  # of a picture, by pixels a side
    parameters: int
    state_bytes: int  # all tensors of the model
    batch_norms: int
    operations: int  # that the host starts in a training step
    activation_bytes_per_pixel: float  # kept from the forward for the backward pass

    def forward_flop(self, size: int) -> float:
        """Of one picture, as the counted size nearest has it a pixel."""
        nearest = min(self.forward_gflop, key=lambda counted: abs(counted - size))
        return 1e9 * self.forward_gflop[nearest] * (size / nearest) ** 2


class PictureCosts(_Table):
    """Milliseconds of a core by pixels a side."""

    pair: dict[int, _Span]  # a moderate and a hard view, read and decoded
    resized: dict[int, _Span]
    verified: _Span  # a whole picture decoded
    requested: _Span  # a small object from the store, of the client alone


class CoreRates(_Table):
    """Of one core."""

    copied_gb_per_s: _Span  # a training's state, in memory
    sha256_gb_per_s: _Span
    search_gflop_per_s: _Span  # nearest neighbours
    pairs_gflop_per_s: _Span  # best pairs under one cap
    train_gflop_per_s: _Span
    describe_gflop_per_s: _Span


class Measured(_Table):
    """``measured.yaml``, as benchmarks/unit_costs.py wrote it."""

    machine: dict[str, Any]
    pictures: dict[str, Any]
    cpu_ms: PictureCosts
    per_core: CoreRates
    backbones: dict[str, Backbone]

    def backbone(self, name: str) -> Backbone:
        """By timm's name, present or old; raises UsageError for one that was not counted."""
        aliases = {"tf_efficientnetv2_m_in21ft1k": "tf_efficientnetv2_m.in21k_ft_in1k"}
        found = self.backbones.get(aliases.get(name, name))
        if found is None:
            raise UsageError(
                f"model.backbone {name!r} is not in the table of estimates: it holds {', '.join(self.backbones)}; "
                "add it to BACKBONES in benchmarks/unit_costs.py and run that"
            )
        return found


class _Published(_Table):
    backbone: str
    size: int
    pictures_per_s: _Span


class _Like(_Table):
    gpu: str
    times: _Span


class Gpu(_Table):
    """Published speed of a GPU."""

    name: str
    memory_gb: float
    train: _Published | None = None
    describe: _Published | None = None
    like: _Like | None = None


class Assumed(_Table):
    """What nobody has measured."""

    core: _Span
    launch_us: _Span
    collective_us: _Span
    collective_between_nodes_us: _Span
    network_share: _Span
    connection_mb_per_s: _Span
    request_s: _Span
    start_s: _Span


class Hardware(_Table):
    """``hardware.yaml``."""

    gpus: dict[str, Gpu]
    sources: list[str]
    assumed: Assumed


class Tables(_Table):
    """Both, and what follows from them."""

    measured: Measured
    hardware: Hardware

    def flop_per_s(self, gpu: str, kind: str) -> Bounds:
        """What a GPU gets done in training (``train``, three forward passes a picture) or describing (``describe``)."""
        entry = self.hardware.gpus[gpu]
        if entry.like is not None:
            return self.flop_per_s(entry.like.gpu, kind) * entry.like.times
        published = entry.train if kind == "train" else entry.describe
        assert published is not None  # the table states both or whom it is like
        flop = self.measured.backbone(published.backbone).forward_flop(published.size)
        return published.pictures_per_s * (flop * (3 if kind == "train" else 1))


def load_tables() -> Tables:
    """As they come with the package."""
    folder = resources.files("isc_jobs.estimate")
    measured, hardware = (
        yaml.safe_load(folder.joinpath(f"{name}.yaml").read_text("utf-8")) for name in ("measured", "hardware")
    )
    return Tables(measured=Measured.model_validate(measured), hardware=Hardware.model_validate(hardware))


def at_size(costs: dict[int, Bounds], size: int) -> Bounds:
    """A cost by pixels a side, straight between the measured sizes and beyond them, in pixels of the picture."""
    sizes = sorted(costs)
    upper = next((place for place, each in enumerate(sizes) if each >= size and place), len(sizes) - 1)
    first, second = sizes[upper - 1], sizes[upper]
    share = (size**2 - first**2) / (second**2 - first**2)
    low, high = (
        max(0.0, getattr(costs[first], end) * (1 - share) + getattr(costs[second], end) * share)
        for end in ("low", "high")
    )
    return Bounds(low, high)
