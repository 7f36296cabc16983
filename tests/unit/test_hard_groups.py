"""Hard-negative batches: groups of near images, each image once, the same again after a stop."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from photo_samples import Folder, build_trainer, compute, samples, silent, training
from torch import Tensor
from torch.nn import functional

from isc_jobs.spec.errors import Terminated, UsageError
from isc_jobs.training.distributed import World
from isc_jobs.training.hard_groups import Neighbours, group_order
from isc_jobs.training.loop import Hooks, Trainer, train
from isc_jobs.training.neighbours import centre, find_neighbours, nearest_others
from isc_jobs.training.schedule import Batches
from isc_jobs.vision.model import normalise
from isc_jobs.vision.resize import load_resized
from isc_jobs.vision.shards import ShardSet

ALONE = World(0, 1, torch.device("cpu"))


def clusters(count: int, each: int, spread: float = 0.6) -> Tensor:
    """Rows (count * each, 32) of length 1; rows n, n + count, n + 2 count … lie about one centre."""
    generator = torch.Generator().manual_seed(0)
    middles = functional.normalize(torch.randn(count, 32, generator=generator))
    noise = functional.normalize(torch.randn(each * count, 32, generator=generator))
    return functional.normalize(middles.repeat(each, 1) + spread * noise)


def of(rows: Tensor, **options: Any) -> Neighbours:
    return nearest_others(rows, ALONE, silent(), **options)


def test_neighbours_are_the_nearest_others_for_any_block() -> None:
    rows = clusters(10, 5)
    similarity = (rows @ rows.T).fill_diagonal_(-2).numpy()
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :32]
    for block in (1, 7 * 50, 1 << 28):
        found = of(rows, block=block)
        np.testing.assert_array_equal(found.nearest, expected)
    np.testing.assert_array_equal(of(rows).twins, (similarity > 0.8).sum(1))
    assert of(rows[:5]).nearest.shape == (5, 4)
    assert of(rows[:1]).nearest.shape == (1, 0)


def test_descriptors_that_all_point_one_way_are_told_apart() -> None:
    rows = clusters(20, 20)
    shifted = functional.normalize(rows + 5 * functional.normalize(torch.ones(32), dim=0))
    assert of(shifted).twins.min() == 32  # as an untrained head leaves them: everything looks like everything
    assert of(centre(shifted)).twins.max() < 20
    same = np.mean([len(set(ours) & set(theirs)) for ours, theirs in zip(
        of(centre(shifted)).nearest[:, :8], of(rows).nearest[:, :8], strict=True)])  # fmt: skip
    assert same > 6


def grouped(neighbours: Neighbours, size: int, seed: int = 0) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return group_order(rng.permutation(len(neighbours.twins)), neighbours, size, rng)


@pytest.mark.parametrize("size", [2, 4, 5])
def test_each_image_stands_once_and_groups_are_of_one_cluster(size: int) -> None:
    neighbours, count = of(clusters(20, 20)), 400
    order = grouped(neighbours, size)
    assert sorted(order) == list(range(count))
    groups = order.reshape(-1, size) % 20
    assert (groups == groups[:, :1]).mean() > 0.85  # a uniform shuffle: a twentieth beside the first
    assert not np.array_equal(order, grouped(neighbours, size, seed=1))
    assert np.array_equal(order, grouped(neighbours, size))


def test_images_that_fill_no_group_stand_at_the_end() -> None:
    order = grouped(of(clusters(3, 4)), 5)
    assert sorted(order) == list(range(12))
    assert len(order) == 12


def test_twins_share_no_group() -> None:
    rows = clusters(20, 20)
    doubled = torch.cat([rows, rows])  # image n + 400 is the same picture as n
    order = grouped(of(doubled), 4)
    groups = order.reshape(-1, 4) % 400
    shared = sum(len(set(group)) < 4 for group in groups.tolist())
    assert shared <= 2  # among the last images, by chance
    assert sum(len(set(group % 20)) == 1 for group in groups) > 160  # of 200, and still near


def test_groups_of_photos_are_nearer_than_a_shuffle(small_photos: Path) -> None:
    trainer = build_trainer(training("v86"), world=ALONE)
    images = ShardSet(Folder(small_photos), "train")
    neighbours = find_neighbours(trainer.model, images, 32, compute(), ALONE, silent())
    rows = centre(_descriptions(trainer, small_photos))
    near, uniform = (
        np.mean([_similarity(rows, order.reshape(-1, 4)) for order in orders])
        for orders in (
            [grouped(neighbours, 4, seed) for seed in range(5)],
            [np.random.default_rng(seed).permutation(24) for seed in range(5)],
        )
    )
    assert near > uniform + 0.2


def _descriptions(trainer: Trainer, small_photos: Path) -> Tensor:
    """Descriptors of the training images, one at a time."""
    images = ShardSet(Folder(small_photos), "train")
    trainer.model.eval()
    with torch.no_grad():
        return torch.cat([trainer.model(normalise(load_resized(images.read(n), 32)[None])) for n in range(24)])


def _similarity(rows: Tensor, groups: NDArray[np.int64]) -> float:
    """Mean over pairs within groups."""
    size = groups.shape[1]
    pairs = [(rows[group] @ rows[group].T)[~torch.eye(size, dtype=torch.bool)].mean().item() for group in groups]
    return float(np.mean(pairs))


def test_batches_hold_whole_groups_on_all_ranks_together() -> None:
    chosen = training("v86", "sample_size=48", "hard_group=4", "epochs=2")
    neighbours = of(clusters(6, 4, spread=0.2))
    whole = list(Batches(chosen, 24, 0, 1, 0, neighbours))
    for step, batch in enumerate(whole):
        parts = [list(Batches(chosen, 24, rank, 4, 0, neighbours))[step] for rank in range(4)]
        assert [key for part in parts for key in part] == batch
    for epoch in range(2):
        indices = [index for batch in whole for when, index in batch if when == epoch]
        assert sorted(indices) == sorted([*range(24)] * 2)
    assert list(Batches(chosen, 24, 0, 1, 5, neighbours)) == whole[5:]


def test_a_resumed_training_with_hard_batches_is_identical_to_the_bit(small_photos: Path, tmp_path: Path) -> None:
    chosen = training("v86", "hard_group=4", "epochs=3", "koleo_weight=0.1")
    rows, states = samples(chosen, small_photos), {}

    def fresh() -> tuple[Trainer, Neighbours]:
        trainer = build_trainer(chosen, world=ALONE, machine=compute("checkpoint_every_steps=1"))
        images = ShardSet(Folder(small_photos), "train")
        return trainer, find_neighbours(trainer.model, images, chosen.input_size, compute(), ALONE, silent())

    whole, neighbours = fresh()
    hooks = silent()
    hooks.save = lambda step, state: states.update({step: copy.deepcopy(state)})
    train(whole, rows, hooks, neighbours)
    torch.save(states[4], tmp_path / "state.pt")  # in the second epoch
    resumed, again = fresh()
    resumed.load(tmp_path / "state.pt")
    train(resumed, rows, silent(), again)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert [row[:-1] for row in whole.history] == [row[:-1] for row in resumed.history]


def test_the_search_says_where_it_is_and_stops_when_asked(small_photos: Path) -> None:
    lines: list[str] = []
    hooks = silent()
    hooks.log = lines.append
    model, images = build_trainer(training("v86"), world=ALONE).model, ShardSet(Folder(small_photos), "train")
    find_neighbours(model, images, 32, compute(), ALONE, hooks)
    assert lines == ["neighbours: 24 of 24 images described", "neighbours: 24 of 24 images compared"]
    stopped = Hooks(progress=hooks.progress, save=hooks.save, stop_requested=lambda: True, log=hooks.log)
    with pytest.raises(Terminated, match="stopped with 0 of 24 images described, before the first step"):
        find_neighbours(model, images, 32, compute(), ALONE, stopped)


def test_groups_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="global_batch 8 is not divisible by hard_group 3"):
        training("v86", "hard_group=3")
    with pytest.raises(UsageError, match="hard_group 2 groups images, samples are pairs"):
        training("v107", "hard_group=2")
