"""Train: one of the four trainings, alone or as one process of torchrun."""

import logging
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from isc_jobs.report.charts import thinned
from isc_jobs.spec.settings import Compute, Model, Training
from isc_jobs.spec.stage import curve_key
from isc_jobs.stages.fetching import fetch_shards
from isc_jobs.stages.ground_truth import parse_ground_truth
from isc_jobs.stages.runner import Context, run_stage
from isc_jobs.stages.saving import STATE, CheckpointWriter
from isc_jobs.store.artifacts import Artifact
from isc_jobs.store.checkpoints import load_latest
from isc_jobs.training.checkpoint import load_weights, write_checkpoint
from isc_jobs.training.dataset import Negatives, Pairs, Samples
from isc_jobs.training.distributed import World, join_world
from isc_jobs.training.events import write_events
from isc_jobs.training.hard_groups import Neighbours
from isc_jobs.training.loop import Hooks, Trainer, history_csv, train
from isc_jobs.training.lost_processes import lost_processes
from isc_jobs.training.neighbours import find_neighbours
from isc_jobs.training.schedule import seed_of
from isc_jobs.training.whitening import whiten_head
from isc_jobs.vision.model import DescriptorModel, build_model
from isc_jobs.vision.shards import ShardSet

_CURVE_S = 10.0


def body(ctx: Context) -> dict[str, Any] | None:
    """Train to the end from where the last attempt's checkpoint is."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    training = ctx.spec.setting("training", Training)
    compute = ctx.spec.compute()
    torch.set_num_threads(compute.threads)
    with lost_processes(), join_world() as world, CheckpointWriter(ctx) as writer:
        ctx.note_stops()  # all ranks end after the same step
        data = ctx.input("data")
        fetch_shards(ctx, data, shards_of(training, data), world)
        samples = open_samples(training, data)
        hooks = Hooks(
            progress=ctx.progress,
            save=writer.save,
            stop_requested=partial(_asked_to_stop, ctx, writer),
            log=ctx.log,
            history=Curve(ctx).show,
        )
        model = _starting_model(ctx, training, world)
        neighbours = _neighbours(ctx, model, training, compute, world, hooks)
        trainer = Trainer(model=model, training=training, compute=compute, world=world)
        _resume(ctx, trainer)
        place = f"rank {world.rank} of {world.size} on {world.device.type}"
        ctx.log(f"{len(samples)} {training.samples}, {place}, from step {trainer.step}", every_rank=True)
        train(trainer, samples, hooks, neighbours)
        return _finish(ctx, trainer)


class Curve:
    """Keeps what a training's curves show in the store, now and then."""

    def __init__(self, ctx: Context) -> None:
        """Nothing is shown yet."""
        self._ctx, self._shown = ctx, time.monotonic()

    def show(self, history: list[list[float]]) -> None:
        """Of rank 0, some hundred of the steps so far."""
        if self._ctx.is_main and time.monotonic() - self._shown >= _CURVE_S:
            self._shown = time.monotonic()
            self._ctx.store.put(curve_key(self._ctx.spec.prefix), history_csv(list(thinned(history))).encode())


def open_samples(training: Training, data: Artifact) -> Samples:
    """The samples of a training out of download's output."""
    references = ShardSet(data, "reference")
    name = "ground_truth_phase1.csv"
    truth = parse_ground_truth(name, data.path(name).read_bytes()) if name in data.names() else []
    pairs = Pairs(ShardSet(data, "query_phase1"), references, truth if training.samples == "pairs" else [])
    return Samples(training, ShardSet(data, "train"), pairs, Negatives(references, truth))


def shards_of(training: Training, data: Artifact) -> list[str]:
    """Files of all sets that the samples are drawn from."""
    sets = ["train"] if training.samples == "images" else ["query_phase1"]
    if training.samples == "pairs" or training.extra_negatives:
        sets.append("reference")
    return [file for name in sets for file, _ in ShardSet(data, name).shards]


def weights_file(artifact: Artifact) -> Path:
    """The checkpoint of a training's output, or the file of given weights."""
    name = "checkpoint.pth.tar"
    return artifact.path(name if name in artifact.names() else "weights.pth.tar")


def _starting_model(ctx: Context, training: Training, world: World) -> DescriptorModel:
    """With the weights that the training begins with, whether or not it goes on from a checkpoint."""
    torch.manual_seed(seed_of(training, 0))
    settings = ctx.spec.setting("model", Model)
    model = build_model(settings, pretrained="start" not in ctx.spec.inputs)
    if "start" in ctx.spec.inputs:
        load_weights(model, weights_file(ctx.input("start")))
    elif settings.head == "whitened":
        whiten_head(model, ShardSet(ctx.input("data"), "train"), training.input_size, world.device)
    return model


def _neighbours(
    ctx: Context, model: DescriptorModel, training: Training, compute: Compute, world: World, hooks: Hooks
) -> Neighbours | None:
    if training.hard_group == 1:
        return None
    images = ShardSet(ctx.input("data"), "train")
    return find_neighbours(model, images, training.input_size, compute, world, hooks)


def _resume(ctx: Context, trainer: Trainer) -> None:
    """Go on from the last attempt's checkpoint, if there is one."""
    folder = ctx.work / f"resume-{trainer.world.rank}"
    folder.mkdir(exist_ok=True)
    if load_latest(ctx.store, ctx.spec.key, folder) is not None:
        trainer.load(folder / STATE)


def _asked_to_stop(ctx: Context, writer: CheckpointWriter) -> bool:
    """Whether SIGTERM came; asked after every step, so it also raises what writing a checkpoint met meanwhile."""
    writer.check()
    return ctx.stop_requested


def _finish(ctx: Context, trainer: Trainer) -> dict[str, Any] | None:
    if not ctx.is_main:
        return None
    epochs, model = trainer.training.epochs, ctx.spec.settings["model"]
    write_checkpoint(
        ctx.out / "checkpoint.pth.tar", trainer.model, trainer.optimiser, epoch=epochs, arch=model["backbone"],
        args=_inference_args(ctx.spec.stage, Model.model_validate(model), trainer.training),
    )  # fmt: skip
    (ctx.out / "history.csv").write_text(history_csv(trainer.history), "utf-8")
    write_events(ctx.out / "tensorboard", ctx.spec.stage, trainer.history)
    tail = trainer.history[-20:]
    return {"steps": trainer.step, "loss": round(sum(row[2] for row in tail) / len(tail), 5)}


def _inference_args(stage: str, model: Model, training: Training) -> dict[str, Any]:
    """What the original's args and ours say of the model, by the original's names where it has them."""
    return {
        "arch": model.backbone, "input_size": training.input_size, "gem_p": model.gem_p,
        "gem_eval_p": model.gem_eval_p, "dimensions": model.dimensions, "training": stage.removeprefix("train-"),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_stage("train", body))
