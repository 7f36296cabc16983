"""Extract: descriptors of queries, references and training images."""

import math
import sys
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from isc_jobs.spec.errors import DataError, Terminated
from isc_jobs.spec.settings import Compute, Extract, Model
from isc_jobs.stages.runner import Context, run_stage
from isc_jobs.stages.train import weights_file
from isc_jobs.training.checkpoint import load_weights
from isc_jobs.training.loop import autocast, choose_precision, quiet_worker
from isc_jobs.training.whitening import whiten_head
from isc_jobs.vision.decode import load_resized
from isc_jobs.vision.model import DescriptorModel, build_model, normalise
from isc_jobs.vision.shards import ShardSet

_ID_WIDTH = {"query": 6, "reference": 7, "train": 7}


def body(ctx: Context) -> dict[str, Any]:
    """Write descriptors.h5 with the sets that ``target_set`` names."""
    extract = Extract.model_validate(ctx.spec.settings["extract"])
    compute = Compute.model_validate(ctx.spec.execution["compute"])
    torch.set_num_threads(compute.threads)
    extractor = _Extractor(ctx, extract, compute)
    data = ctx.input("data")
    sets = {"q": ("query", f"query_{extract.queries}"), "r": ("reference", "reference"), "t": ("train", "train")}
    chosen = {sets[letter][0]: ShardSet(data, sets[letter][1]) for letter in extract.target_set}
    extractor.total = sum(len(pictures) for pictures in chosen.values())
    counts = {}
    with h5py.File(ctx.out / "descriptors.h5", "w") as file:
        for name, pictures in chosen.items():
            if not len(pictures):
                raise DataError(f"the data hold no {name} pictures: leave {name[0]!r} out of extract.target_set")
            file[name] = extractor.run(pictures)
            width = max(_ID_WIDTH[name], *(len(id_) for id_ in pictures.ids))
            file[f"{name}_ids"] = np.array(pictures.ids, dtype=f"S{width}")
            counts[name] = len(pictures)
    return counts


class _Pictures(Dataset[Tensor]):
    """(size, size, 3) uint8 of each picture."""

    def __init__(self, pictures: ShardSet, size: int) -> None:
        self._pictures, self._size = pictures, size

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(load_resized(self._pictures.read(index), self._size))


class _Extractor:
    def __init__(self, ctx: Context, extract: Extract, compute: Compute) -> None:
        self._ctx, self._extract, self._compute = ctx, extract, compute
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._precision = choose_precision(compute.precision, self._device)
        self._trained = "weights" in ctx.spec.inputs
        self._whitened = bool(ctx.spec.settings.get("whitened"))
        self._model = self._load().eval().to(self._device).to(memory_format=torch.channels_last)
        self._done = self.total = 0

    def _load(self) -> DescriptorModel:
        settings = Model.model_validate(self._ctx.spec.settings["model"])
        model = build_model(settings, pretrained=not self._trained, gem_p=settings.gem_eval_p)
        if self._trained:
            load_weights(model, weights_file(self._ctx.input("weights")))
        if self._whitened:
            whiten_head(model, ShardSet(self._ctx.input("data"), "train"), self._extract.input_size, self._device)
        return model

    @torch.inference_mode()
    def run(self, pictures: ShardSet) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Descriptors (n, d) float32 in the pictures' order; summed over sizes and mirror images if asked for."""
        size = self._extract.input_size
        factors = [1.0]
        if self._extract.test_time_augmentation:
            factors = [1 / math.sqrt(2), 1.0, math.sqrt(2)]
        loaders = [self._loader(_Pictures(pictures, round(size * factor))) for factor in factors]
        parts = []
        for batches in zip(*loaders, strict=True):
            if self._ctx.stop_requested:
                raise Terminated(f"stopped after {self._done} of {self.total} pictures; run again")
            parts.append(self._describe(batches).cpu())
            self._done += len(parts[-1])
            self._ctx.progress(self._done, self.total)
        return torch.cat(parts).numpy()

    def _describe(self, batches: tuple[Tensor, ...]) -> Tensor:
        total: Any = 0
        describe = self._model if self._trained or self._whitened else self._model.features
        for pixels in batches:
            x = normalise(pixels.to(self._device, non_blocking=True))
            for view in (x, x.flip(-1)) if self._extract.test_time_augmentation else (x,):
                with autocast(self._precision, self._device):
                    total = total + describe(view).float()
        return functional.normalize(total)

    def _loader(self, pictures: _Pictures) -> DataLoader[Tensor]:
        return DataLoader(
            pictures, batch_size=self._extract.batch, num_workers=self._compute.loader_workers,
            worker_init_fn=quiet_worker, pin_memory=self._device.type == "cuda",
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_stage("extract", body))
