"""The exported model is the model, for any number of pictures, and says how to prepare them."""

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from isc_jobs.cli import main
from isc_jobs.spec.profile import load_settings
from isc_jobs.training.checkpoint import write_checkpoint
from isc_jobs.vision.model import DescriptorModel, build_model, normalise

DEMO = load_settings("demo").model


@pytest.fixture(scope="module", params=[1.0, 3.0], ids=["mean", "gem 3"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DescriptorModel]:
    """A weights file of real ImageNet features, and its model."""
    torch.manual_seed(0)
    model = build_model(DEMO, pretrained=True, gem_p=request.param).eval()
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pth.tar"
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    args = {"input_size": 96, "gem_eval_p": request.param}
    write_checkpoint(path, model, optimiser, epoch=1, arch=DEMO.backbone, args=args)
    return path, model


def test_descriptors_are_those_of_torch_for_any_batch(
    weights: tuple[Path, DescriptorModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = weights
    out = tmp_path / "model.onnx"
    assert main(["export", "--weights", str(path), "--out", str(out)]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]  # one file, and nothing beside it
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch in (1, 3, 7):
        pixels = rng.integers(0, 256, (batch, 96, 96, 3), np.uint8)
        with torch.inference_mode():
            expected = model(normalise(pixels)).numpy()
        [found] = session.run(None, {"pixels": pixels})
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    stated = {prop.key: prop.value for prop in onnx.load(out).metadata_props}
    assert stated["input"] == "pixels: uint8 (batch, 96, 96, 3), RGB"
    assert "resized to 96 x 96, aspect ignored, bilinear" in stated["preprocessing"]
    assert (stated["arch"], stated["output"]) == (DEMO.backbone, "descriptors: float32 (batch, 256), of length 1")
    shown = capsys.readouterr().out
    assert all(value in shown for value in stated.values())


def test_another_size_is_exported_if_asked_for(weights: tuple[Path, DescriptorModel], tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    assert main(["export", "--weights", str(weights[0]), "--out", str(out), "--input-size", "64"]) == 0
    pixels = np.full((2, 64, 64, 3), 200, np.uint8)
    [found] = onnxruntime.InferenceSession(out).run(None, {"pixels": pixels})
    with torch.inference_mode():
        np.testing.assert_allclose(found, weights[1](normalise(pixels)).numpy(), atol=1e-4, rtol=0)


def test_without_the_extra_the_sentence_says_what_to_install(
    weights: tuple[Path, DescriptorModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "onnxscript" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert main(["export", "--weights", str(weights[0]), "--out", str(tmp_path / "m.onnx")]) == 64
    assert "onnxscript not installed: pip install -e '.[onnx]' in the checkout" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
