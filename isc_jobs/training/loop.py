"""The one training loop."""

import csv
import io
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from isc_jobs.spec.errors import DataError, Terminated, UsageError
from isc_jobs.spec.settings import Compute, Training
from isc_jobs.training.batch_norm import synchronise, train_mode
from isc_jobs.training.checkpoint_pace import CheckpointPace
from isc_jobs.training.dataset import Samples
from isc_jobs.training.distributed import World, any_rank, gather_rows, share_state
from isc_jobs.training.hard_groups import Neighbours
from isc_jobs.training.koleo import koleo_loss
from isc_jobs.training.loaders import begin_worker
from isc_jobs.training.loss import Loss, contrastive_loss
from isc_jobs.training.memory_bank import MemoryBank
from isc_jobs.training.schedule import Batches, build_optimiser, learning_rate
from isc_jobs.vision.model import DescriptorModel, normalise
from isc_jobs.vision.pickled import read_pickled

HISTORY = ("step", "epoch", "loss", "positive_loss", "negative_loss", "koleo_loss", "lr", "seconds")


@dataclass(kw_only=True)
class Hooks:
    """What the loop tells, and asks, its caller."""

    progress: Callable[..., None]
    save: Callable[[int, dict[str, Any]], None]  # step, state, whose tensors the next step changes
    stop_requested: Callable[[], bool]  # asked after every step
    log: Callable[[str], None]  # a line for people
    history: Callable[[list[list[float]]], None] = lambda _: None  # of all steps, after each


@dataclass(kw_only=True)
class Trainer:
    """A training in progress: all that a checkpoint must hold, and one step."""

    model: DescriptorModel
    training: Training
    compute: Compute
    world: World
    step: int = 0
    saved: int | None = None  # step of the last checkpoint, on the first rank
    history: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Move, synchronise and wrap the model; build optimiser, scaler and memory."""
        self.model.to(self.world.device).to(memory_format=torch.channels_last)
        synchronise(self.model, self.world)
        share_state(self.model.state_dict(), self.world)
        if self.compute.compile:
            compile_model(self.model, self.world.device)
        self.wrapped: nn.Module = self.model
        if self.world.size > 1:
            self.wrapped = DistributedDataParallel(self.model, broadcast_buffers=False)
        self.optimiser = build_optimiser(self.model, self.training)
        self.precision = choose_precision(self.compute.precision, self.world.device)
        self.scaler = torch.amp.GradScaler(self.world.device.type, enabled=self.precision == torch.float16)
        head = self.model.fc.weight  # memory and loss have its precision, whatever the forward pass has
        self.memory = MemoryBank(self.training.memory_size, len(head), self.world.device, head.dtype)

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate; at the restart, forget the memory."""
        if epoch == self.training.restart_epoch:
            self.memory.clear()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.training, epoch)

    def train_step(self, pixels: Tensor, labels: Tensor) -> Loss:
        """One step on local rows (n, s, s, 3) uint8 with labels (n,); the global mean loss.

        Raises UsageError for a loss that is no number, before it spoils the weights.
        """
        device = self.world.device
        x = normalise(pixels.to(device, non_blocking=True))
        with autocast(self.precision, device):
            embeddings = self.wrapped(x)
        gathered = gather_rows(embeddings.to(self.memory.embeddings.dtype), self.world)
        loss = self._loss(gathered, gather_rows(labels.to(device), self.world))
        if not torch.isfinite(loss.total):
            raise self._diverged(f"the loss is {loss.total.item()} in step {self.step + 1}")
        self.optimiser.zero_grad(set_to_none=True)
        # DDP averages gradients over ranks; their sum is the gradient of the global mean loss.
        torch.autograd.backward(self.scaler.scale(loss.total * self.world.size))
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return Loss(*(part.detach() for part in loss))

    def _loss(self, embeddings: Tensor, labels: Tensor) -> Loss:
        """Of the gathered rows (b, d) with labels (b,), outside mixed precision."""
        margins = self.training.positive_margin, self.training.negative_margin
        loss, weight = contrastive_loss(embeddings, labels, self.memory, *margins), self.training.koleo_weight
        if weight == 0:
            return loss
        koleo = koleo_loss(embeddings, labels)
        return loss._replace(total=loss.total + weight * koleo, koleo=koleo)

    def check_finite(self) -> None:
        """Raises UsageError if the model holds what is no number: a finite loss may yet have had such a gradient."""
        tensors = {name: tensor for name, tensor in self.model.state_dict().items() if tensor.is_floating_point()}
        finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
        bad = [name for name, whole in zip(tensors, finite, strict=True) if not whole]
        if bad:
            raise self._diverged(f"after step {self.step} {len(bad)} of {len(tensors)} tensors, first {bad[0]}, hold "
                                 "NaN or infinity")  # fmt: skip

    def _diverged(self, found: str) -> UsageError:
        lr = float(self.optimiser.param_groups[0]["lr"])
        kept = f"the checkpoint of step {self.saved} is finite and kept" if self.saved else "there is no checkpoint"
        kept = kept if self.world.rank == 0 else "the last checkpoint is finite and kept"
        precise = self.precision == torch.float32
        return UsageError(
            f"{found}, with lr {lr:g}: the training has diverged; {kept}; try a lower lr"
            + ("" if precise else " or compute.precision=fp32")
        )

    def state(self) -> dict[str, Any]:
        """Everything that a bit-identical continuation needs; the tensors are the live ones, which a step changes."""
        return {
            "step": self.step, "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(), "memory": self.memory.state(),
            "history": tuple(self.history),  # whose rows never change
            "generator": torch.get_rng_state(),
        }  # fmt: skip

    def load(self, path: Path) -> None:
        """Continue from a state written by ``torch.save``."""
        state = load_state(path, self.world.device)
        self.step, self.history = state["step"], list(state["history"])
        self.saved = self.step
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.memory.load(state["memory"])
        torch.set_rng_state(state["generator"].cpu())


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """What ``Trainer.state`` was saved as; raises DataError for anything else."""
    state = read_pickled(path, device)
    wanted = {"step", "model", "optimiser", "scaler", "memory", "history", "generator"}
    if not isinstance(state, dict) or set(state) != wanted:
        raise DataError(f"{path} is no state of a training: expected {', '.join(sorted(wanted))}")
    return state


def train(trainer: Trainer, samples: Samples, hooks: Hooks, neighbours: Neighbours | None = None) -> None:
    """Run all steps that are left; raises Terminated after a checkpoint if a stop is requested.

    ``neighbours`` of the training images, for a training that groups its batches by them.
    """
    training, world = trainer.training, trainer.world
    batches = Batches(training, len(samples), world.rank, world.size, trainer.step, neighbours)
    total = trainer.step + len(batches)
    train_mode(trainer.model, frozen=training.batch_norm == "frozen")
    pace = CheckpointPace(trainer.compute)
    for pixels, labels in _loader(samples, batches, trainer.compute, world):
        started = time.monotonic()
        epoch, within = divmod(trainer.step, batches.steps_per_epoch)
        if within == 0:
            trainer.begin_epoch(epoch)
        loss = trainer.train_step(pixels, labels)
        trainer.step += 1
        lr = float(trainer.optimiser.param_groups[0]["lr"])
        values = [value.item() for value in loss]
        trainer.history.append([trainer.step, epoch, *values, lr, round(time.monotonic() - started, 4)])
        hooks.progress(trainer.step, total, loss=values[0], lr=lr)
        hooks.history(trainer.history)
        stop = any_rank(hooks.stop_requested(), world)
        # The first rank alone decides, by its clock, and saves: a checkpoint needs nothing of the others.
        if stop or (world.rank == 0 and trainer.step < total and pace.is_due(trainer.step)):
            trainer.check_finite()
            with pace.saving():
                hooks.save(trainer.step, trainer.state())
            trainer.saved = trainer.step
        if stop:
            raise Terminated(f"stopped at step {trainer.step} of {total}; a checkpoint is kept, run again to go on")
    trainer.check_finite()


def history_csv(history: list[list[float]]) -> str:
    """The history with its header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HISTORY, *history])
    return text.getvalue()


def choose_precision(setting: str, device: torch.device) -> torch.dtype:
    """``auto``: bfloat16 on a GPU that has it, else float16 there; float32 on a CPU."""
    if setting == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[setting]


def compile_model(model: nn.Module, device: torch.device) -> None:
    """Have torch compile the forward pass at its first call; names and values of the weights stay as they are.

    Raises UsageError without a compiler, which torch looks for on the machine.
    """
    variable, usual = ("CXX", "g++") if device.type == "cpu" else ("CC", "gcc")
    compiler = os.environ.get(variable, usual)
    if shutil.which(compiler) is None:
        raise UsageError(
            f"compute.compile needs the compiler {compiler}: install it, name yours in {variable}, or set false"
        )
    model.compile()


def autocast(precision: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision, or none for float32."""
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)


def _loader(samples: Samples, batches: Batches, compute: Compute, world: World) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(
        samples, batch_sampler=batches, num_workers=compute.loader_workers, collate_fn=_concatenate,
        pin_memory=world.device.type == "cuda", worker_init_fn=begin_worker,
        prefetch_factor=4 if compute.loader_workers else None,
    )  # type: ignore[arg-type, unused-ignore]  # fmt: skip


def _concatenate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([rows for rows, _ in samples]), torch.cat([labels for _, labels in samples])
