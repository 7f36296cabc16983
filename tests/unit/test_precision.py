"""Mixed precision, memory layout and compilation on the real trainer."""

import os
from pathlib import Path

import pytest
import torch
from photo_samples import build_trainer, compute, samples, silent, training
from torch import Tensor, nn

from isc_jobs.spec.errors import UsageError
from isc_jobs.training.checkpoint import load_weights, write_checkpoint
from isc_jobs.training.distributed import World
from isc_jobs.training.loop import Trainer, train
from isc_jobs.training.loss import contrastive_loss
from isc_jobs.training.memory_bank import MemoryBank

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)


def trained(small_photos: Path, *options: str, epochs: int = 2, lr: float | None = None) -> Trainer:
    chosen = training("v86", f"epochs={epochs}", *([] if lr is None else [f"lr={lr}"]))
    trainer = build_trainer(chosen, world=ALONE, machine=compute(*options))
    train(trainer, samples(chosen, small_photos), silent())
    return trainer


def a_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=generator), torch.arange(8) // 2


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_loss_of_mixed_precision_is_computed_in_float32(precision: str) -> None:
    trainer = build_trainer(training("v86"), world=ALONE, machine=compute(f"precision={precision}"))
    kinds = set()
    trainer.model.backbone.register_forward_hook(lambda *call: kinds.add(call[2][-1].dtype))
    trainer.model.train()
    loss = trainer.train_step(*a_batch())
    assert kinds == {torch.bfloat16 if precision == "bf16" else torch.float16}
    rows = trainer.memory.embeddings[:8]
    assert rows.dtype == loss.total.dtype == torch.float32
    again = contrastive_loss(rows, a_batch()[1], MemoryBank(8, 16, CPU), 0.0, 1.0)
    torch.testing.assert_close(loss.total, again.total, atol=1e-6, rtol=0)
    for parameter in trainer.model.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_stays_close_to_float32(precision: str, small_photos: Path) -> None:
    """At a rate at which a handful of pictures do not amplify every rounding from step to step."""
    mixed, full = (trained(small_photos, f"precision={kind}", lr=0.0001) for kind in (precision, "fp32"))
    for ours, theirs in zip(mixed.history, full.history, strict=True):
        assert ours[2] == pytest.approx(theirs[2], abs=0.02)
    assert mixed.history[0][2] != full.history[0][2]  # it was not float32


def test_gradients_are_scaled_in_float16_alone_and_come_out_as_they_are() -> None:
    grown: dict[str, Tensor] = {}
    for precision in ("fp32", "bf16", "fp16"):
        trainer = build_trainer(training("v86"), world=ALONE, machine=compute(f"precision={precision}"))
        before = trainer.model.fc.weight.detach().clone()
        trainer.train_step(*a_batch())
        assert trainer.scaler.is_enabled() == (precision == "fp16")
        grown[precision] = trainer.model.fc.weight.detach() - before
    for precision in ("bf16", "fp16"):
        difference = torch.linalg.norm(grown[precision] - grown["fp32"]) / torch.linalg.norm(grown["fp32"])
        assert difference < 0.2


def test_a_step_that_overflows_is_left_out_and_the_scale_halved(tmp_path: Path) -> None:
    trainer = build_trainer(training("v86"), world=ALONE, machine=compute("precision=fp16"))
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**40})
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.train_step(*a_batch())
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.named_parameters())
    assert trainer.scaler.get_scale() == 2.0**39
    torch.save(trainer.state(), tmp_path / "state.pt")
    other = build_trainer(training("v86"), world=ALONE, machine=compute("precision=fp16"))
    other.load(tmp_path / "state.pt")
    assert other.scaler.get_scale() == 2.0**39


def test_weights_and_pictures_lie_channels_last() -> None:
    trainer = build_trainer(training("v86"), world=ALONE)
    layouts: list[bool] = []
    for module in trainer.model.modules():
        if isinstance(module, nn.Conv2d):
            layouts.append(module.weight.is_contiguous(memory_format=torch.channels_last))
            module.register_forward_hook(
                lambda _, rows, out: layouts.extend(
                    tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (*rows, out)
                )
            )
    trainer.train_step(*a_batch())
    assert len(layouts) > 30
    assert all(layouts)


@pytest.mark.xdist_group("compile")  # long: begun first
@pytest.mark.usefixtures("compiler")
def test_a_compiled_model_trains_as_the_plain_one_and_each_goes_on_from_the_other(
    small_photos: Path, tmp_path: Path
) -> None:
    plain, fast = trained(small_photos), trained(small_photos, "compile=true")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # it was compiled
    for ours, theirs in zip(fast.history, plain.history, strict=True):
        assert ours[2] == pytest.approx(theirs[2], abs=1e-3)
    assert list(fast.model.state_dict()) == list(plain.model.state_dict())
    for name, source, options in (("to", plain, ["compile=true"]), ("from", fast, [])):
        torch.save(source.state(), tmp_path / f"{name}.pt")
        other = build_trainer(training("v86", "epochs=3"), world=ALONE, machine=compute(*options))
        other.load(tmp_path / f"{name}.pt")
        train(other, samples(other.training, small_photos), silent())
        assert other.step == 9
    path = tmp_path / "checkpoint.pth.tar"
    write_checkpoint(path, fast.model, fast.optimiser, epoch=2, arch="test", args={})
    load_weights(plain.model, path)


def test_compiling_without_a_compiler_is_refused_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"compute.compile needs the compiler g\+\+: install it"):
        build_trainer(training("v86"), world=ALONE, machine=compute("compile=true"))
