"""The descriptor model as ONNX: pictures in as bytes, descriptors out, normalisation within the graph."""

import importlib.util
import logging
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from isc_jobs.spec.errors import UsageError
from isc_jobs.store.artifacts import file_sha256
from isc_jobs.training.inference import ModelFacts, load_model
from isc_jobs.vision.model import DescriptorModel

_PACKAGES = ("onnx", "onnxscript")
_OPSET = 18


class PixelModel(nn.Module):
    """Pictures (b, s, s, 3) uint8 RGB to descriptors (b, dimensions) float32 of length 1."""

    def __init__(self, model: DescriptorModel) -> None:
        """Around the model of normalised pictures."""
        super().__init__()
        self.model = model

    def forward(self, pixels_bhwc: Tensor) -> Tensor:
        """Normalise (mean = std = .5) and describe."""
        descriptors: Tensor = self.model(pixels_bhwc.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
        return descriptors


def export_onnx(path: Path, out: Path, arch: str | None = None, input_size: int | None = None) -> dict[str, str]:
    """Write the model of a weights file to ``out``; what its metadata say.

    The batch is of any size. Raises UsageError without the packages of the extra ``onnx``, and as ``load_model``.
    """
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise UsageError(f"{' and '.join(absent)} not installed: pip install -e '.[onnx]' in the checkout")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: {out.parent} is not a folder: make it first")
    model, facts = load_model(path, arch, input_size)
    stated = _metadata(facts, file_sha256(path))
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        _export(PixelModel(model).eval(), facts.input_size, stated, temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return stated


def _export(model: nn.Module, size: int, stated: dict[str, str], out: Path) -> None:
    import onnx

    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about versions of what torch itself calls
        program = torch.onnx.export(
            model, (example,), dynamo=True, opset_version=_OPSET, input_names=["pixels"], verbose=False,
            output_names=["descriptors"], dynamic_shapes={"pixels_bhwc": {0: torch.export.Dim("batch")}},
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, stated)
    onnx.checker.check_model(proto)
    out.write_bytes(proto.SerializeToString())


def _metadata(facts: ModelFacts, digest: str) -> dict[str, str]:
    size = facts.input_size
    return {
        "arch": facts.arch,
        "input": f"pixels: uint8 (batch, {size}, {size}, 3), RGB",
        "preprocessing": (
            f"RGB picture resized to {size} x {size}, aspect ignored, bilinear with antialiasing (Pillow's BILINEAR); "
            "the graph itself computes pixels / 127.5 - 1 and takes them to (batch, 3, height, width)"
        ),
        "output": f"descriptors: float32 (batch, {facts.dimensions}), of length 1",
        "comparison": "score = -(squared L2 distance)",
        "weights_sha256": digest,
    }  # fmt: skip
