"""One, two and four processes with the same global batch are one training."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from photo_samples import Folder, build_trainer, compute, samples, silent, training
from torch.multiprocessing.spawn import spawn

from isc_jobs.training.distributed import World, join_world
from isc_jobs.training.loop import _loader, train
from isc_jobs.training.neighbours import find_neighbours
from isc_jobs.training.schedule import Batches
from isc_jobs.vision.shards import ShardSet

ALONE = World(0, 1, torch.device("cpu"))
# Name, overrides, in float64: extra negatives and statistics of all ranks; both options; and float32 as it is trained.
CASES: list[tuple[str, list[str], bool]] = [
    ("v98", ["epochs=4"], True),
    ("v86", ["epochs=4", "koleo_weight=0.1", "hard_group=2"], True),
    ("v98", ["epochs=4", "lr=0.0001"], False),
]


def run_case(case: int, root: Path, world: World) -> dict[str, Any]:
    """The case's training by the real loop, with a loader process; what came of it."""
    name, overrides, double = CASES[case]
    chosen, machine = training(name, *overrides), compute("loader_workers=1")
    trainer = build_trainer(chosen, world=world, machine=machine, double=double)
    start = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    neighbours = None
    if chosen.hard_group > 1:
        images = ShardSet(Folder(root), "train")
        neighbours = find_neighbours(trainer.model, images, chosen.input_size, machine, world, silent())
    train(trainer, samples(chosen, root), silent(), neighbours)
    return {
        "losses": torch.tensor([row[2:5] for row in trainer.history], dtype=torch.float64),
        "memory": trainer.memory.state(), "start": start, "model": trainer.model.state_dict(),
        "neighbours": None if neighbours is None else torch.from_numpy(neighbours.nearest),
    }  # fmt: skip


def _process(rank: int, root: Path, out: Path, size: int, port: int) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # loader processes start as they do under torchrun
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with join_world() as world:
        torch.save([run_case(case, root, world) for case in range(len(CASES))], out / f"{rank}.pt")


@pytest.fixture(scope="module")
def alone(small_photos: Path) -> list[dict[str, Any]]:
    return [run_case(case, small_photos, ALONE) for case in range(len(CASES))]


def start(process: Callable[..., None], root: Path, out: Path, size: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    spawn(process, (root, out, size, port), nprocs=size)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("size", [2, 4])
def test_processes_with_the_same_global_batch_are_one(
    size: int, small_photos: Path, alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    start(_process, small_photos, tmp_path, size)
    for rank in range(size):
        for found, expected in zip(torch.load(tmp_path / f"{rank}.pt"), alone, strict=True):
            assert_equal_training(found, expected)


def _compiled_process(rank: int, root: Path, out: Path, size: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with join_world() as world:
        trainers = [build_trainer(training("v86", "epochs=1"), world=world, machine=compute(f"compile={value}"))
                    for value in ("false", "true")]  # fmt: skip
        for trainer in trainers:
            train(trainer, samples(trainer.training, root), silent())
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        plain, fast = ({"losses": [row[2] for row in run.history], "model": run.model.state_dict()} for run in trainers)
        torch.save((plain, fast, graphs), out / f"{rank}.pt")


@pytest.mark.xdist_group("compile")  # long: begun first
@pytest.mark.usefixtures("compiler")
def test_processes_of_a_compiled_model_train_as_those_of_a_plain_one(small_photos: Path, tmp_path: Path) -> None:
    start(_compiled_process, small_photos, tmp_path, 2)
    for rank in range(2):
        plain, fast, graphs = torch.load(tmp_path / f"{rank}.pt")
        assert graphs > 0  # it was compiled
        torch.testing.assert_close(fast, plain, atol=1e-3, rtol=0)


def assert_equal_training(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert len(found["losses"]) == 12
    exact = expected["model"]["fc.weight"].dtype == torch.float64
    for part, rounding in (("losses", 5e-5), ("memory", 5e-5), ("model", 1e-5)):
        torch.testing.assert_close(found[part], expected[part], atol=1e-9 if exact else rounding, rtol=0)
    assert torch.equal(found["memory"]["labels"], expected["memory"]["labels"])
    torch.testing.assert_close(found["neighbours"], expected["neighbours"], atol=0, rtol=0)
    for name in ("fc.weight", "backbone.conv_stem.weight"):  # the rate does not depend on the processes
        moved, wanted = (run["model"][name] - run["start"][name] for run in (found, expected))
        assert torch.linalg.norm(moved) == pytest.approx(torch.linalg.norm(wanted).item(), rel=1e-2)
        assert torch.linalg.norm(wanted) > 1e-4


@pytest.mark.parametrize("name", ["v98", "v107"])
def test_the_rows_of_a_step_are_the_same_for_any_number_of_processes(name: str, small_photos: Path) -> None:
    chosen = training(name, "epochs=2")
    rows = samples(chosen, small_photos)
    whole = load(rows, chosen, 0, 1, workers=0)
    per_sample = 2 + chosen.extra_negatives
    for size in (2, 4):
        parts = [load(rows, chosen, rank, size, workers=2 if size == 2 else 0) for rank in range(size)]
        for step, (pixels, labels) in enumerate(whole):
            assert len(labels) == chosen.global_batch * per_sample
            assert torch.equal(labels, torch.cat([part[step][1] for part in parts]))
            assert torch.equal(pixels, torch.cat([part[step][0] for part in parts]))


def load(rows: Any, chosen: Any, rank: int, size: int, *, workers: int) -> list[Any]:
    batches = Batches(chosen, len(rows), rank, size)
    return list(_loader(rows, batches, compute(f"loader_workers={workers}"), World(rank, size, ALONE.device)))
