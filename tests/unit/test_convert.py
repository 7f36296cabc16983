"""Weights change their layout and stay the same to the bit; what a file holds is shown without its secrets."""

import argparse
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from isc_jobs.cli import main
from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.weights import weights_kind
from isc_jobs.training.checkpoint import load_weights, open_checkpoint, write_checkpoint
from isc_jobs.training.convert import convert_file, inspect_file
from isc_jobs.training.inference import load_model, read_facts
from isc_jobs.vision.model import DescriptorModel

ARCH = "tf_efficientnet_lite0"
BIG = "tf_efficientnetv2_m_in21ft1k"
ARGS: dict[str, Any] = {"arch": ARCH, "input_size": 160, "gem_p": 1.0, "lr": 0.5, "dist_url": "tcp://me:word@host:1?sig=abc",
        "wandb_token": "abc", "resume": ""}  # fmt: skip


def original_file(path: Path, backbone: str = ARCH, **args: Any) -> DescriptorModel:
    """A file of the original's layout with random weights, as its own training loop writes it."""
    torch.manual_seed(7)
    model = DescriptorModel(backbone, 256, 1.0)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-6)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    optimiser.step()
    content = {
        "epoch": 10, "arch": backbone, "state_dict": torch.nn.ModuleDict({"module": model}).state_dict(),
        "optimizer": optimiser.state_dict(), "args": argparse.Namespace(**args),
    }  # fmt: skip
    torch.save(content, path)
    return model


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "isc_ft_v107.pth.tar"
    original_file(path, **ARGS)
    return path


def test_the_way_through_all_layouts_and_back_changes_no_bit(original: Path, tmp_path: Path) -> None:
    files = [original, *(tmp_path / name for name in ("a.pth.tar", "b.pth", "c.safetensors", "d.pt", "e.pth.tar"))]
    for source, target in pairwise(files):
        convert_file(source, target, ARCH)
    first = torch.load(files[1], weights_only=False)  # as the original reads
    last = torch.load(files[-1], weights_only=False)
    assert same(first["state_dict"], last["state_dict"])
    assert same(first["state_dict"], torch.load(original, weights_only=False)["state_dict"])
    assert all(name.startswith("module.") for name in last["state_dict"])
    bare = torch.load(files[2], weights_only=True)
    assert same(bare, {name.removeprefix("module."): tensor for name, tensor in first["state_dict"].items()})
    assert isinstance(last["args"], argparse.Namespace)
    assert [weights_kind(path.read_bytes()[:9]) for path in files] == ["zip"] * 3 + ["safetensors"] + ["zip"] * 2


def test_the_originals_layout_keeps_epoch_arch_args_and_optimiser(original: Path, tmp_path: Path) -> None:
    convert_file(original, tmp_path / "again.pth.tar")
    ours, theirs = (torch.load(path, weights_only=False) for path in (tmp_path / "again.pth.tar", original))
    assert set(ours) == set(theirs) == {"epoch", "arch", "state_dict", "optimizer", "args"}
    assert (ours["epoch"], ours["arch"], vars(ours["args"])) == (10, ARCH, ARGS)
    model = DescriptorModel(ARCH, 256, 1.0)
    torch.optim.SGD(model.parameters(), lr=1.0).load_state_dict(ours["optimizer"])
    momenta = [[state["momentum_buffer"] for state in f["optimizer"]["state"].values()] for f in (ours, theirs)]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))


def test_safetensors_carry_arch_epoch_and_args(original: Path, tmp_path: Path) -> None:
    convert_file(original, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["arch"], metadata["epoch"], json.loads(metadata["args"])) == (ARCH, "10", ARGS)
    opened = open_checkpoint(tmp_path / "x.safetensors")
    assert (opened.arch, opened.epoch, opened.args) == (ARCH, 10, ARGS)
    assert read_facts(opened).input_size == 160


def test_the_published_architecture_has_the_originals_names_and_loads_strictly(tmp_path: Path) -> None:
    path = tmp_path / "isc_ft_v107.pth.tar"
    model = original_file(path, BIG, arch=BIG, input_size=512)
    stored = torch.load(path, weights_only=False)["state_dict"]
    heads = [name for name in stored if not name.startswith("module.backbone.")]
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert heads == ["module.fc.weight", *(f"module.bn.{name}" for name in statistics)]
    assert not any("conv_head" in name for name in stored)
    loaded, facts = load_model(path)
    assert (facts.arch, facts.input_size) == ("tf_efficientnetv2_m.in21k_ft_in1k", 512)
    assert same(dict(loaded.state_dict()), dict(model.state_dict()))
    found = inspect_file(path)
    assert (found["loads"], found["parameters"], found["tensors"]) == (True, 52_332_020, 1118)


def test_what_is_shown_holds_no_secret(original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "inspect", str(original), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["args"] == ARGS | {"dist_url": "tcp://(hidden)@host:1?(hidden)", "wandb_token": "(hidden)"}
    counts = {"layout": "original", "epoch": 10, "arch": ARCH, "dimensions": 256, "input_size": 160, "tensors": 294}
    assert {name: found[name] for name in counts} == counts
    assert main(["checkpoint", "inspect", str(original)]) == 0
    shown = capsys.readouterr().out
    assert "loads       strictly, into tf_efficientnet_lite0" in shown
    assert "  lr: 0.5" in shown
    assert "abc" not in shown
    assert "word" not in shown


def test_names_that_do_not_fit_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pth.tar"
    original_file(path)
    content = torch.load(path, weights_only=False)
    tensors = content["state_dict"]
    tensors["module.extra"] = tensors.pop("module.bn.bias")
    tensors["module.bn.weight"] = torch.zeros(3)
    torch.save(content, path)
    assert main(["checkpoint", "inspect", str(path)]) == 65
    shown = capsys.readouterr().out
    assert "loads       NOT: into tf_efficientnet_lite0: 1 missing: bn.bias; 1 unexpected: extra" in shown
    assert "; 1 of another shape: bn.weight" in shown
    for line in ("  missing: bn.bias", "  unexpected: extra", "  misshapen: bn.weight"):
        assert line in shown.splitlines()
    with pytest.raises(DataError, match=r"1 missing: bn\.bias"):
        convert_file(path, tmp_path / "y.pth")
    assert not (tmp_path / "y.pth").exists()


def test_a_file_of_another_model_is_said_to_be_none(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "x.pth")
    found = inspect_file(tmp_path / "x.pth")
    assert (found["loads"], "hold no fc.weight" in found["reason"]) == (False, True)
    torch.save({"fc.weight": torch.zeros(256, 4)}, tmp_path / "x.pth")
    assert inspect_file(tmp_path / "x.pth", "no_such_net")["reason"].startswith("model.backbone 'no_such_net'")


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda path: (path, path.with_name("y.txt")), UsageError, "expected .pth.tar"),
        (lambda path: (path, path.with_name("y.tar")), UsageError, "expected .pth.tar"),
        (lambda path: (path, path.parent / "absent/y.pth"), UsageError, "absent is not a folder"),
        (lambda path: (path.with_name("absent"), path.with_name("y.pth")), UsageError, "no such file"),
        (
            lambda path: (path.parent, path.with_name("y.pth")),
            UsageError,
            "a folder was found, expected a file; it holds .*pth",
        ),
    ],
)
def test_a_wrong_name_is_a_usage_error(
    original: Path, change: Callable[[Path], tuple[Path, Path]], error: type[Exception], sentence: str
) -> None:
    before = sorted(original.parent.iterdir())
    with pytest.raises(error, match=sentence):
        convert_file(*change(original))
    assert sorted(original.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("args", "sentence"),
    [({"input_size": "big"}, "input_size is 'big'"), ({"input_size": 8}, "input_size is 8"),
     ({"gem_eval_p": 0}, "gem_eval_p is 0"), ({"gem_eval_p": float("nan")}, "gem_eval_p is nan")],
)  # fmt: skip
def test_impossible_args_are_named(original: Path, tmp_path: Path, args: dict[str, Any], sentence: str) -> None:
    content = torch.load(original, weights_only=False)
    torch.save(content | {"args": argparse.Namespace(**args)}, tmp_path / "x.pth.tar")
    with pytest.raises(DataError, match=sentence):
        load_model(tmp_path / "x.pth.tar")


def test_what_a_training_here_writes_needs_no_settings(tmp_path: Path) -> None:
    model = DescriptorModel(ARCH, 64, 3.0)
    path = tmp_path / "checkpoint.pth.tar"
    args = {"input_size": 96, "gem_p": 1.0, "gem_eval_p": 3.0, "dimensions": 64}
    write_checkpoint(path, model, torch.optim.SGD(model.parameters(), lr=0.1), epoch=2, arch=ARCH, args=args)
    _, facts = load_model(path)
    assert (facts.arch, facts.dimensions, facts.input_size, facts.gem_p) == (ARCH, 64, 96, 3.0)
    assert load_model(path, input_size=64)[1].input_size == 64
    bare = tmp_path / "bare.pth"
    convert_file(path, bare)
    with pytest.raises(
        DataError, match=r"names no architecture and tf_efficientnetv2_m.* was assumed, give its own with --arch"
    ):
        load_model(bare)  # the profile's backbone is not this file's
    load_weights(DescriptorModel(ARCH, 64, 3.0), bare)
