"""The train stage as it runs: what an attempt was stopped in, the next one ends as if nothing had been."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from photo_samples import compute, training

from isc_jobs.spec.errors import Terminated, UsageError
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.stages.runner import Context
from isc_jobs.stages.train import body
from isc_jobs.store import open_store
from isc_jobs.store.artifacts import publish
from isc_jobs.store.checkpoints import load_latest
from isc_jobs.store.directory import DirectoryStore

MODEL = load_settings("demo", ["model.backbone=test_efficientnet", "model.pretrained=none", "model.dimensions=16",
                               "model.head=whitened"]).model  # fmt: skip
DATA = InputRef(stage="download", key="0" * 64)


@pytest.fixture(scope="module")
def store(small_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("store"))
    publish(open_store(uri), DATA, small_photos, run="test", attempt=1, summary={}, provenance={}, seconds=0)
    return uri


class SlowStore(DirectoryStore):
    """Takes its time with files, so that a step is faster than a checkpoint."""

    def upload(self, key: str, path: Path) -> None:
        time.sleep(0.3)
        super().upload(key, path)


def attempt(store: str, work: Path, key: str, *overrides: str, every: int = 500) -> Context:
    chosen = training("v86", "epochs=3", *overrides)
    machine = compute(f"checkpoint_every_steps={every}").model_dump(mode="json")
    spec = StageSpec(
        program="train", stage="train-v86", key=key * 64, run="test", attempt=1, store=store,
        settings={"model": MODEL.model_dump(mode="json"), "training": chosen.model_dump(mode="json")},
        inputs={"data": DATA}, parameters={}, execution={"compute": machine},
    )  # fmt: skip
    return Context(spec, SlowStore(Path(store)), work)


def outcome(ctx: Context) -> tuple[dict[str, torch.Tensor], list[list[str]]]:
    """Weights, and the history without its times."""
    weights: dict[str, torch.Tensor] = torch.load(ctx.out / "checkpoint.pth.tar")["state_dict"]
    lines = (ctx.out / "history.csv").read_text().splitlines()
    return weights, [line.split(",")[:-1] for line in lines]


@pytest.mark.parametrize("overrides", [(), ("hard_group=4", "koleo_weight=0.1", "lr=0.1")], ids=["plain", "options"])
def test_an_attempt_goes_on_in_the_same_order_from_the_starting_weights_neighbours(
    store: str, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    keys = ("a", "b") if overrides else ("c", "d")
    whole = attempt(store, tmp_path / "whole", keys[0], *overrides)
    assert body(whole) is not None
    first = attempt(store, tmp_path / "first", keys[1], *overrides)
    first.progress = lambda step, *_, **__: first.request_stop(signal.SIGTERM, None) if step == 4 else None
    with pytest.raises(Terminated, match="stopped at step 4 of 9"):
        body(first)
    assert load_latest(first.store, first.spec.key, tmp_path) == 4  # it was waited for
    second = attempt(store, tmp_path / "second", keys[1], *overrides)
    assert body(second) is not None
    expected, found = outcome(whole), outcome(second)
    assert found[1] == expected[1]
    assert all(torch.equal(found[0][name], expected[0][name]) for name in expected[0])


def test_a_finished_training_leaves_nothing_that_still_writes(store: str, tmp_path: Path) -> None:
    ctx = attempt(store, tmp_path, "1", every=8)  # of nine steps: the upload outlasts the last one
    assert body(ctx) is not None
    assert load_latest(ctx.store, ctx.spec.key, tmp_path) == 8


def test_a_checkpoint_that_cannot_be_written_ends_the_training_at_a_later_step(store: str, tmp_path: Path) -> None:
    ctx = attempt(store, tmp_path, "2", "epochs=20", every=30)
    marker = Path(store) / "checkpoints" / ("2" * 64)
    marker.parent.mkdir(exist_ok=True)
    marker.write_text("in the way")
    steps: list[int] = []

    def progress(step: int, *_: object, **__: object) -> None:
        steps.append(step)
        time.sleep(0.05 if step > 30 else 0)

    ctx.progress = progress
    with pytest.raises(UsageError, match="cannot be written"):
        body(ctx)
    assert 30 <= steps[-1] < 60


def test_only_a_training_with_hard_batches_looks_for_neighbours(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: dict[int, Any] = {}
    for group in (1, 4):
        body(attempt(store, tmp_path / str(group), "ef"[group // 4], f"hard_group={group}", "epochs=1"))
        said[group] = capsys.readouterr().out
    assert "neighbours" not in said[1]
    assert "train-v86  neighbours: 24 of 24 images described\n" in said[4]
