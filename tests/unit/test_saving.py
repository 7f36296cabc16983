"""Checkpoints in the background: what is saved, how many at once, and what happens when one fails."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.stage import StageSpec
from isc_jobs.stages.runner import Context
from isc_jobs.stages.saving import STATE, CheckpointWriter
from isc_jobs.store import open_store
from isc_jobs.store.checkpoints import load_latest
from isc_jobs.training.host_copy import HostCopy


def context(tmp_path: Path, rank: int = 0) -> Context:
    spec = StageSpec(
        program="train", stage="train-v86", key="a" * 64, run="test", attempt=1, store=str(tmp_path / "store"),
        settings={}, inputs={}, parameters={}, execution={},
    )  # fmt: skip
    return Context(spec, open_store(spec.store), tmp_path / f"work-{rank}", rank)


def make_state() -> dict[str, Any]:
    return {
        "step": 1,
        "model": {"weight": torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last), "count": torch.tensor(7)},
        "optimiser": {
            "state": {0: {"momentum_buffer": torch.randn(9)}, 1: {"momentum_buffer": None}},
            "param_groups": [{"lr": torch.tensor(0.1), "params": [0, 1]}],
        },
        "history": ([1.0, 2.0],),
    }


def tensors_of(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for item in items for tensor in tensors_of(item)]


def change(state: dict[str, Any]) -> None:
    for tensor in tensors_of(state):
        tensor.add_(1)


def read_back(ctx: Context, folder: Path) -> tuple[int | None, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    return load_latest(ctx.store, ctx.spec.key, folder), torch.load(folder / STATE)


@contextmanager
def nothing_is_written(writer: CheckpointWriter) -> Iterator[None]:
    """For as long as this lasts: the thread has other work."""
    free = threading.Event()
    writer._thread.submit(free.wait)
    try:
        yield
    finally:
        free.set()


def test_a_checkpoint_holds_the_state_as_it_was_however_late_it_is_written(tmp_path: Path) -> None:
    ctx, state = context(tmp_path), make_state()
    with CheckpointWriter(ctx) as writer:
        for step in (1, 2):  # the second goes into the buffers of the first
            expected = [tensor.clone() for tensor in tensors_of(state)]
            with nothing_is_written(writer):
                writer.save(step, state)
                change(state)
            writer.wait()
            saved, found = read_back(ctx, tmp_path / "read")
            assert saved == step
            assert all(torch.equal(a, b) for a, b in zip(tensors_of(found), expected, strict=True))
            assert found["model"]["weight"].is_contiguous(memory_format=torch.channels_last)
            assert found["optimiser"]["state"][1] == {"momentum_buffer": None}
            assert (found["step"], found["history"]) == (1, ([1.0, 2.0],))


def test_a_copy_reuses_its_memory_but_for_a_tensor_of_another_form() -> None:
    state, copier = make_state(), HostCopy()
    first = [tensor.data_ptr() for tensor in tensors_of(copier.take(state))]
    assert not set(first) & {tensor.data_ptr() for tensor in tensors_of(state)}
    state["model"]["weight"] = torch.randn(3, 8, 4, 4)
    threads = torch.get_num_threads()
    copied = copier.take(state)
    assert [tensor.data_ptr() for tensor in tensors_of(copied)][1:] == first[1:]
    assert torch.equal(copied["model"]["weight"], state["model"]["weight"])
    assert torch.get_num_threads() == threads


def test_one_is_written_at_a_time_and_the_next_waits_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx, state = context(tmp_path), make_state()
    with CheckpointWriter(ctx) as writer:
        with nothing_is_written(writer):
            writer.save(1, state)
            second = threading.Thread(target=writer.save, args=(2, state))
            second.start()
            second.join(0.2)
            assert second.is_alive()
        second.join()
    assert "waits for the checkpoint of step 1" in capsys.readouterr().out
    assert read_back(ctx, tmp_path / "read")[0] == 2


def test_leaving_waits_until_the_last_is_in_the_store_and_two_are_kept(tmp_path: Path) -> None:
    ctx, state = context(tmp_path), make_state()
    with CheckpointWriter(ctx) as writer:
        for step in (1, 2, 3):
            writer.save(step, state)
    kept = {info.key.split("/")[2] for info in ctx.store.list("checkpoints/")}
    assert kept == {"step-000000002", "step-000000003"}


def test_a_failure_is_raised_by_the_next_look_and_once_and_by_none_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx, state = context(tmp_path), make_state()
    (tmp_path / "store").mkdir()
    (tmp_path / "store/checkpoints").write_text("in the way")
    with CheckpointWriter(ctx) as writer:
        with nothing_is_written(writer):
            writer.save(1, state)
            writer.check()  # it goes on as long as nobody knows
        assert writer._underway is not None
        assert writer._underway[1].exception() is not None  # and now it is known
        with pytest.raises(UsageError, match="cannot be written"):
            writer.check()
        writer.check()
        writer.save(2, state)
        with pytest.raises(UsageError, match="cannot be written"):
            writer.save(3, state)
    with CheckpointWriter(ctx) as writer:  # a training that has ended is not lost with its last checkpoint
        writer.save(4, state)
    assert "the last checkpoint was not written" in capsys.readouterr().out
    nan = DataError("the loss is nan")

    def train() -> None:
        with CheckpointWriter(ctx) as writer:
            writer.save(5, state)
            raise nan

    with pytest.raises(DataError, match="the loss is nan"):
        train()


def test_only_the_main_process_saves(tmp_path: Path) -> None:
    ctx = context(tmp_path, rank=1)
    with CheckpointWriter(ctx) as writer:
        writer.save(1, make_state())
    assert not list(ctx.store.list(""))
