"""Extract: descriptors of queries, references and training images."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from isc_jobs.spec.errors import DataError
from isc_jobs.spec.settings import Compute, Extract, Model
from isc_jobs.stages.pieces import Piece, Pieces
from isc_jobs.stages.runner import Context, run_stage
from isc_jobs.stages.train import weights_file
from isc_jobs.training.checkpoint import load_weights
from isc_jobs.training.loaders import begin_worker
from isc_jobs.training.loop import autocast, choose_precision
from isc_jobs.training.lost_processes import lost_processes
from isc_jobs.training.whitening import whiten_head
from isc_jobs.vision.folding import fold_batch_norms
from isc_jobs.vision.model import DescriptorModel, build_model, normalise
from isc_jobs.vision.resize import load_resized
from isc_jobs.vision.shards import ShardSet

_ID_WIDTH = {"query": 6, "reference": 7, "train": 7}
_Batch = list[tuple[str, int]]  # set and position of each picture


@dataclass(frozen=True)
class _Shard:
    """The pictures of one shard that holds any."""

    set: str
    file: str
    positions: range

    @property
    def name(self) -> str:
        return PurePosixPath(self.file).stem


def body(ctx: Context) -> dict[str, Any] | None:
    """Describe this part's shards; the last part writes descriptors.h5 with the sets that ``target_set`` names."""
    extract = ctx.spec.setting("extract", Extract)
    compute = ctx.spec.compute()
    torch.set_num_threads(compute.threads)
    chosen = _choose(ctx, extract)
    shards = [_Shard(name, file, places) for name in chosen for file, places in chosen[name].shards if places]
    pieces = Pieces(ctx, [shard.name for shard in shards], final=False)
    mine = [shard for shard in shards if shard.name in pieces.mine]
    missing = [shard for shard in mine if pieces.recall(shard.name) is None]
    if missing:
        extractor = _Extractor(ctx, extract, compute, _pictures(mine))
        with lost_processes():
            for shard, rows in extractor.describe(chosen, missing):
                np.save(pieces.path(f"{shard.name}.npy"), rows)
                pieces.keep(shard.name, [f"{shard.name}.npy"], {})
    described = pieces.all()
    if described is None:
        return None
    _write(ctx, chosen, pieces, list(zip(shards, described, strict=True)))
    return {name: len(pictures) for name, pictures in chosen.items()}


def _pictures(shards: Sequence[_Shard]) -> int:
    return sum(len(shard.positions) for shard in shards)


def _choose(ctx: Context, extract: Extract) -> dict[str, ShardSet]:
    """The sets in the order of ``target_set``; raises DataError for one without pictures."""
    data = ctx.input("data")
    sets = {"q": ("query", f"query_{extract.queries}"), "r": ("reference", "reference"), "t": ("train", "train")}
    chosen = {sets[letter][0]: ShardSet(data, sets[letter][1]) for letter in extract.target_set}
    for name, pictures in chosen.items():
        if not len(pictures):
            raise DataError(f"the data hold no {name} pictures: leave {name[0]!r} out of extract.target_set")
    return chosen


def _write(ctx: Context, chosen: dict[str, ShardSet], pieces: Pieces, described: list[tuple[_Shard, Piece]]) -> None:
    """Write the shards' rows one after the other, so that one at a time is in memory."""
    with h5py.File(ctx.out / "descriptors.h5", "w") as file:
        for name, pictures in chosen.items():
            for shard, piece in described:
                if shard.set == name:
                    [path] = pieces.fetch(piece)
                    rows = np.load(path)
                    dataset = file.require_dataset(name, (len(pictures), rows.shape[1]), np.float32)
                    dataset[shard.positions.start : shard.positions.stop] = rows
            longest = max(map(len, pictures.ids))
            file[f"{name}_ids"] = np.array(pictures.ids, dtype=f"S{max(_ID_WIDTH[name], longest)}")


def _finite(rows: NDArray[np.float32], pictures: ShardSet, shard: _Shard) -> NDArray[np.float32]:
    """The descriptors of a shard's pictures; raises DataError if one is no direction."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise DataError(
            f"descriptors of {len(bad)} of {len(rows)} pictures of {shard.name} hold NaN or infinity, first that of "
            f"{pictures.ids[shard.positions[int(bad[0])]]}: the weights are of a training that diverged, or too large "
            "for compute.precision; give others, or fp32"
        )
    return rows


class _Pictures(Dataset[tuple[Tensor, ...]]):
    """A picture by set and position, as (size, size, 3) uint8 of each size."""

    def __init__(self, sets: dict[str, ShardSet], sizes: Sequence[int]) -> None:
        self._sets, self._sizes = sets, sizes

    def __getitem__(self, place: tuple[str, int]) -> tuple[Tensor, ...]:
        name, position = place
        data = self._sets[name].read(position)
        return tuple(torch.from_numpy(load_resized(data, size)) for size in self._sizes)


class _Extractor:
    def __init__(self, ctx: Context, extract: Extract, compute: Compute, total: int) -> None:
        """``total``: how many pictures this part has to describe, with those an earlier attempt described."""
        self._ctx, self._extract, self._compute, self._total = ctx, extract, compute, total
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._precision = choose_precision(compute.precision, self._device)
        self._trained = "weights" in ctx.spec.inputs
        self._whitened = bool(ctx.spec.settings.get("whitened"))
        self._model = self._load().eval()
        fold_batch_norms(self._model.backbone)
        self._model.to(self._device).to(memory_format=torch.channels_last)

    def _load(self) -> DescriptorModel:
        settings = self._ctx.spec.setting("model", Model)
        model = build_model(settings, pretrained=not self._trained, gem_p=settings.gem_eval_p)
        if self._trained:
            load_weights(model, weights_file(self._ctx.input("weights")))
        if self._whitened:
            whiten_head(model, ShardSet(self._ctx.input("data"), "train"), self._extract.input_size, self._device)
        return model

    def describe(
        self, sets: dict[str, ShardSet], shards: Sequence[_Shard]
    ) -> Iterator[tuple[_Shard, NDArray[np.float32]]]:  # fmt: skip
        """Each shard's descriptors (n, d): of a picture's views the sum, normalised."""
        full = self._extract.test_time_augmentation == "full"
        factors = (1 / math.sqrt(2), 1.0, math.sqrt(2)) if full else (1.0,)
        pictures = _Pictures(sets, [round(self._extract.input_size * factor) for factor in factors])
        loader = iter(self._loader(pictures, self._batches(sets, shards)))
        done = self._total - _pictures(shards)
        for shard in shards:
            rows: list[Tensor] = []
            for _ in range(0, len(shard.positions), self._extract.batch):
                rows.append(self._describe(next(loader)).cpu())
                done += len(rows[-1])
                self._ctx.progress(done, self._total)
            yield shard, _finite(torch.cat(rows).numpy(), sets[shard.set], shard)

    @torch.inference_mode()
    def _describe(self, batches: Sequence[Tensor]) -> Tensor:
        total: Any = 0
        describe = self._model if self._trained or self._whitened else self._model.features
        for pixels in batches:
            x = normalise(pixels.to(self._device, non_blocking=True))
            for view in (x,) if self._extract.test_time_augmentation == "none" else (x, x.flip(-1)):
                with autocast(self._precision, self._device):
                    total = total + describe(view).float()
        return functional.normalize(total)

    def _loader(self, pictures: _Pictures, batches: Iterator[_Batch]) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(
            pictures, batch_sampler=batches, num_workers=self._compute.loader_workers,
            worker_init_fn=begin_worker, pin_memory=self._device.type == "cuda",
        )  # fmt: skip

    def _batches(self, sets: dict[str, ShardSet], shards: Sequence[_Shard]) -> Iterator[_Batch]:
        """No batch crosses a shard's border: a descriptor must not depend on what else this part describes."""
        for shard in shards:
            sets[shard.set].fetch(shard.file)  # fetched here, once, not by every loader process
            places = [(shard.set, position) for position in shard.positions]
            yield from (places[n : n + self._extract.batch] for n in range(0, len(places), self._extract.batch))


if __name__ == "__main__":
    sys.exit(run_stage("extract", body))
