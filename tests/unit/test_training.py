"""Schedules, the order of samples, frozen batch norm, and the loop on a real small model."""

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isc_jobs.spec.errors import DataError, Terminated, UsageError
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Settings, Training
from isc_jobs.training.batch_norm import train_mode
from isc_jobs.training.distributed import World
from isc_jobs.training.loop import Hooks, Trainer, choose_precision, history_csv, train
from isc_jobs.training.schedule import Batches, build_optimiser, learning_rate, seed_of
from isc_jobs.vision.model import DescriptorModel

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
SMALL = [f"trainings.v83.{value}" for value in (
    "sample_size=8", "epochs=3", "schedule_epochs=4", "restart_epoch=2", "global_batch=4", "input_size=32",
    "memory_size=32",
)]  # fmt: skip


def settings(*overrides: str) -> Settings:
    return load_settings("demo", [*SMALL, "compute.loader_workers=0", *overrides])


def full_size(name: str) -> Training:
    training: Training = getattr(load_settings("isc21").trainings, name)
    return training


class _Rows(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Two random rows per sample, drawn by (epoch, index) as the real samples are."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 6

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(100 * key[0] + key[1])
        rows = torch.randint(0, 256, (2, 32, 32, 3), generator=generator, dtype=torch.uint8)
        return rows, torch.tensor([key[1], key[1]])


class _Log(Hooks):
    """Hooks that keep what they were told."""

    def __init__(self, stop_at: int = 10**9) -> None:
        self.steps: list[int] = []
        self.saved: dict[int, dict[str, Any]] = {}
        super().__init__(
            progress=lambda step, *_, **__: self.steps.append(step),
            save=lambda step, state: self.saved.update({step: copy.deepcopy(state)}),
            stop_requested=lambda: bool(self.steps and self.steps[-1] >= stop_at),
            log=lambda _: None,
        )


def trainer(*overrides: str) -> Trainer:
    torch.manual_seed(0)
    chosen = settings(*overrides)
    model = DescriptorModel("tf_efficientnet_lite0", 16, 1.0)
    return Trainer(model=model, training=chosen.trainings.v83, compute=chosen.compute, world=ALONE)


def test_both_schedules_at_full_size() -> None:
    assert {learning_rate(full_size("v83"), epoch) for epoch in range(6)} == {0.025}
    linear = [learning_rate(full_size("v107"), epoch) for epoch in range(10)]
    assert linear == pytest.approx([0.03125 * (1 - epoch / 10) for epoch in range(10)])
    assert [seed_of(full_size("v83"), epoch) for epoch in range(6)] == [9] * 5 + [90]
    assert seed_of(full_size("v98"), 1) == 999


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, plain = build_optimiser(model, full_size("v83")).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3), (2, 4)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (1e-6, 0.0)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_share_each_global_batch_and_nothing_is_seen_twice(size: int) -> None:
    training = settings("trainings.v83.sample_size=10").trainings.v83
    whole = list(Batches(training, 10, 0, 1))
    parts = [list(Batches(training, 10, rank, size)) for rank in range(size)]
    assert len(whole) == 6  # three epochs of two full batches
    for step, batch in enumerate(whole):
        assert [key for part in parts for key in part[step]] == batch
    for epoch in range(3):
        seen = [index for step in whole for (when, index) in step if when == epoch]
        assert len(seen) == len(set(seen)) == 8


def test_every_order_of_an_epoch_is_as_likely_as_another() -> None:
    orders = []
    training = settings("trainings.v83.sample_size=4", "trainings.v83.epochs=1").trainings.v83
    for seed in range(3000):
        [batch] = Batches(training.model_copy(update={"seeds": (seed, 0)}), 4, 0, 1)
        orders.append(tuple(index for _, index in batch))
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == 3000
    assert sum((count - 125) ** 2 / 125 for count in counts) < 50  # chi-squared, 23 degrees: 1 in 1000 is above


def test_a_continued_order_is_the_rest_of_the_whole_one() -> None:
    training = settings().trainings.v83
    assert list(Batches(training, 6, 0, 1, first=3)) == list(Batches(training, 6, 0, 1))[3:]


def test_small_data_repeat_evenly() -> None:
    training = settings("trainings.v83.sample_size=24").trainings.v83
    indices = [index for batch in Batches(training, 6, 0, 1) for epoch, index in batch if epoch == 0]
    assert sorted(indices) == sorted([*range(6)] * 4)


def test_batches_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="global_batch 4 is not divisible by 3 processes"):
        Batches(settings().trainings.v83, 6, 0, 3)
    with pytest.raises(DataError, match="0 training images are fewer"):
        Batches(settings().trainings.v83, 0, 0, 1)


def test_frozen_batch_norm_keeps_all_statistics_and_learns_weights() -> None:
    run = trainer("trainings.v83.batch_norm=frozen")
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    train(run, _Rows(), _Log())  # type: ignore[arg-type]
    after = run.model.state_dict()
    means = [name for name in after if name.endswith("running_mean")]
    assert "bn.running_mean" in means
    assert all(torch.equal(before[name], after[name]) for name in means)
    assert not torch.equal(before["backbone.bn1.weight"], after["backbone.bn1.weight"])


def test_batch_norm_in_training_moves_the_statistics() -> None:
    run = trainer("trainings.v83.batch_norm=train")
    before = run.model.state_dict()["backbone.bn1.running_mean"].clone()
    train(run, _Rows(), _Log())  # type: ignore[arg-type]
    assert not torch.equal(before, run.model.state_dict()["backbone.bn1.running_mean"])
    train_mode(run.model, frozen=False)
    assert all(module.training for module in run.model.modules())


def test_checkpoints_progress_and_history(tmp_path: Path) -> None:
    run, log = trainer("compute.checkpoint_every_steps=2"), _Log()
    train(run, _Rows(), log)  # type: ignore[arg-type]
    assert log.steps == [1, 2, 3, 4, 5, 6]
    assert sorted(log.saved) == [2, 4]  # the last step is committed, not kept as a checkpoint
    lines = history_csv(run.history).splitlines()
    assert lines[0] == "step,epoch,loss,positive_loss,negative_loss,koleo_loss,lr,seconds"
    assert len(lines) == 7
    torch.save(log.saved[4], tmp_path / "state.pt")
    other = trainer()
    other.load(tmp_path / "state.pt")
    train(other, _Rows(), _Log())  # type: ignore[arg-type]
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name


def test_a_stop_leaves_a_checkpoint_of_that_step() -> None:
    log = _Log(stop_at=3)
    with pytest.raises(Terminated, match="stopped at step 3 of 6"):
        train(trainer(), _Rows(), log)  # type: ignore[arg-type]
    assert sorted(log.saved) == [3]


def test_the_memory_is_emptied_at_the_restart() -> None:
    run = trainer("trainings.v83.restart_epoch=2")
    train(run, _Rows(), _Log())  # type: ignore[arg-type]
    assert run.memory.filled == 2 * 8  # the third epoch's two steps alone


def test_a_rate_far_too_high_ends_the_training_in_a_sentence_and_keeps_the_good_checkpoint() -> None:
    run, log = trainer("trainings.v83.lr=1.0e+30", "compute.checkpoint_every_steps=1"), _Log()
    expected = (
        r"the loss is nan in step 2, with lr 1e\+30: the training has diverged; the checkpoint of step 1 is "
        "finite and kept; try a lower lr$"
    )
    with pytest.raises(UsageError, match=expected):
        train(run, _Rows(), log)  # type: ignore[arg-type]
    assert list(log.saved) == [1]
    assert all(tensor.isfinite().all() for tensor in log.saved[1]["model"].values())


@pytest.mark.parametrize(("overrides", "steps"), [((), 6), (("compute.checkpoint_every_steps=6",), 6),
                                                  (("compute.checkpoint_every_steps=3",), 3)])  # fmt: skip
def test_weights_that_are_no_numbers_are_neither_kept_nor_committed_though_the_loss_was_finite(
    overrides: tuple[str, ...], steps: int
) -> None:
    run, log = trainer(*overrides), _Log()
    progress = log.progress

    def spoil(step: int, *more: Any, **values: float) -> None:
        progress(step, *more, **values)
        if step == steps:  # as an infinite gradient does
            with torch.no_grad():
                run.model.fc.weight[0, 0] = float("inf")

    log.progress = spoil
    said = rf"after step {steps} 1 of \d+ tensors, first fc.weight, hold NaN or infinity.*there is no checkpoint"
    with pytest.raises(UsageError, match=said):
        train(run, _Rows(), log)  # type: ignore[arg-type]
    assert not log.saved


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_precision_on_a_cpu(setting: str, expected: torch.dtype) -> None:
    assert choose_precision(setting, CPU) is expected


def test_a_bf16_step_learns_on_a_cpu() -> None:
    run = trainer("compute.precision=bf16")
    before = run.model.fc.weight.detach().clone()
    train(run, _Rows(), _Log())  # type: ignore[arg-type]
    assert run.model.fc.weight.dtype == torch.float32
    assert not torch.equal(before, run.model.fc.weight)
