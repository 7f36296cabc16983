"""Which training images lie close together for the model that a training starts from."""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from isc_jobs.spec.errors import Terminated
from isc_jobs.spec.settings import Compute
from isc_jobs.training.distributed import World, any_rank, merge_parts, share_state
from isc_jobs.training.hard_groups import Neighbours
from isc_jobs.training.loaders import begin_worker
from isc_jobs.training.loop import Hooks, autocast, choose_precision
from isc_jobs.vision.model import DescriptorModel, normalise
from isc_jobs.vision.resize import load_resized
from isc_jobs.vision.shards import ShardSet

_NEAREST = 32
_BATCH = 64
# Similarity above which two images may show the same picture. With ImageNet weights a photo and a crop of it to .7 of
# its area stand above in 19 of 20 cases, no two of the 142 example photos do; training drives both further apart.
_TWINS = 0.8
_BLOCK = 1 << 28  # similarities held at once: a gigabyte


def find_neighbours(
    model: DescriptorModel, images: ShardSet, size: int, compute: Compute, world: World, hooks: Hooks
) -> Neighbours:
    """The nearest others of each image, unedited, at (size, size); the ranks share the work and all hold the result.

    Batches and blocks are the same for any number of ranks. Raises Terminated if a stop is requested.
    """
    model.to(world.device).eval()
    share_state(model.state_dict(), world)
    return nearest_others(centre(_describe(model, images, size, compute, world, hooks)), world, hooks)


def centre(descriptors: Tensor) -> Tensor:
    """Descriptors (n, d) from their mean, of length 1: those of an untrained head all point one way."""
    return functional.normalize(descriptors - descriptors.mean(0))


def nearest_others(descriptors: Tensor, world: World, hooks: Hooks, *, block: int = _BLOCK) -> Neighbours:
    """By inner product of rows (n, d) of length 1; at most ``block`` similarities are held at once."""
    total, device = len(descriptors), descriptors.device
    count, rows = min(_NEAREST, total - 1), max(1, block // total)
    nearest = torch.zeros(total, count, dtype=torch.int32, device=device)
    twins = torch.zeros(total, dtype=torch.int32, device=device)
    starts = range(0, total, rows)
    for turn in range(0, len(starts), world.size):
        _stop_if_asked(hooks, world, "compared", turn * rows, total)
        for start in starts[turn + world.rank : turn + world.rank + 1]:
            part = slice(start, start + rows)
            similarity = descriptors[part] @ descriptors.T
            own = torch.arange(len(similarity), device=device)
            similarity[own, start + own] = -torch.inf
            values, places = similarity.topk(count)
            nearest[part], twins[part] = places.int(), (values > _TWINS).sum(1).int()
        _say(hooks, "compared", turn * rows, (turn + world.size) * rows, total)
    return Neighbours(merge_parts(nearest, world).cpu().numpy(), merge_parts(twins, world).cpu().numpy())


class _Unedited(Dataset[Tensor]):
    def __init__(self, images: ShardSet, size: int) -> None:
        self._images, self._size = images, size

    def __getitem__(self, place: int) -> Tensor:
        return torch.from_numpy(load_resized(self._images.read(place), self._size))


@torch.inference_mode()
def _describe(
    model: DescriptorModel, images: ShardSet, size: int, compute: Compute, world: World, hooks: Hooks
) -> Tensor:
    """Descriptors (n, d) of all images, on the device."""
    total, precision = len(images), choose_precision(compute.precision, world.device)
    batches = [list(range(start, min(start + _BATCH, total))) for start in range(0, total, _BATCH)]
    own = batches[world.rank :: world.size]
    loader = iter(DataLoader(
        _Unedited(images, size), batch_sampler=own, num_workers=compute.loader_workers, worker_init_fn=begin_worker,
        pin_memory=world.device.type == "cuda",
    ))  # type: ignore[arg-type, unused-ignore]  # fmt: skip
    table = torch.zeros(total, model.fc.out_features, device=world.device)
    for turn in range(0, len(batches), world.size):
        _stop_if_asked(hooks, world, "described", turn * _BATCH, total)
        for batch in batches[turn + world.rank : turn + world.rank + 1]:
            x = normalise(next(loader).to(world.device, non_blocking=True))
            with autocast(precision, world.device):
                table[batch] = model(x).float()
        _say(hooks, "described", turn * _BATCH, (turn + world.size) * _BATCH, total)
    return merge_parts(table, world)


def _stop_if_asked(hooks: Hooks, world: World, what: str, done: int, total: int) -> None:
    if any_rank(hooks.stop_requested(), world):
        raise Terminated(f"stopped with {done} of {total} images {what}, before the first step: run again")


def _say(hooks: Hooks, what: str, before: int, now: int, total: int) -> None:
    """Say where we are at each tenth."""
    if min(now, total) * 10 // total > before * 10 // total:
        hooks.log(f"neighbours: {min(now, total)} of {total} images {what}")
