"""The descriptor model: backbone, GeM pooling, linear projection, batch norm, L2 normalisation."""

import importlib.resources
import re
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from isc_jobs.spec.errors import DataError, TemporaryError, UsageError
from isc_jobs.spec.settings import Model
from isc_jobs.vision.pickled import brief, check_tensors, read_pickled
from isc_jobs.vision.same_padding import pad_within_convolutions

_HUB_PREFIX = re.compile(r"^(hf[-_]hub:)?timm/", re.IGNORECASE)


def resolve_backbone(name: str) -> str:
    """Timm's present name: without the hub's prefix, old names by timm's own table of deprecations.

    Raises UsageError for models of other places than timm.
    """
    plain = _HUB_PREFIX.sub("", name)
    if ":" in plain or "/" in plain:
        raise UsageError(f"backbone {name!r}: expected a name of timm's, as tf_efficientnetv2_m.in21k_ft_in1k")
    return timm.models.get_deprecated_models().get(plain) or plain


class DescriptorModel(nn.Module):
    """Pictures (b, 3, h, w), normalised, to descriptors (b, dimensions) of length 1."""

    def __init__(self, backbone: str, dimensions: int, gem_p: float, *, pretrained: bool = False) -> None:
        """Build with random weights, or the hub's for the backbone; raises UsageError for an unknown backbone."""
        super().__init__()
        name = resolve_backbone(backbone)
        try:
            backbone_model: Any = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=(-1,))
        except (RuntimeError, AssertionError) as error:  # unknown; removed without a successor
            raise UsageError(f"model.backbone {backbone!r}: {' '.join(str(error).split())[:200]}") from error
        except OSError as error:
            raise TemporaryError(
                f"weights of {name} cannot be fetched from the hub ({brief(error)}): see that huggingface.co, "
                "or a mirror that HF_ENDPOINT names, is reached, or set model.pretrained to a file or package:NAME"
            ) from error
        pad_within_convolutions(backbone_model)
        self.backbone: nn.Module = backbone_model
        channels = int(backbone_model.feature_info.channels()[-1])
        self.gem_p = gem_p
        self.fc = nn.Linear(channels, dimensions, bias=False)
        nn.init.xavier_normal_(self.fc.weight)
        self.bn = nn.BatchNorm1d(dimensions)

    def pool(self, x_bchw: Tensor) -> Tensor:
        """GeM-pooled feature maps (b, channels)."""
        features = self.backbone(x_bchw)[-1].float()
        if self.gem_p == 1.0:
            return torch.mean(features.clamp(min=1e-6), dim=(-2, -1))
        return torch.mean(features.clamp(min=1e-6) ** self.gem_p, dim=(-2, -1)) ** (1.0 / self.gem_p)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Descriptors (b, dimensions), float32."""
        return functional.normalize(self.bn(self.fc(self.pool(x_bchw))).float())

    def features(self, x_bchw: Tensor) -> Tensor:
        """The backbone's own descriptors (b, channels), without the trained head."""
        return functional.normalize(self.pool(x_bchw))


def build_model(settings: Model, *, pretrained: bool, gem_p: float | None = None) -> DescriptorModel:
    """The model of the settings; with ``pretrained``, backbone weights from where the settings say."""
    source = settings.pretrained if pretrained else "none"
    model = DescriptorModel(
        settings.backbone, settings.dimensions, settings.gem_p if gem_p is None else gem_p, pretrained=source == "hub"
    )
    if source not in {"hub", "none"}:
        _load_backbone(model, settings.backbone, source)
    return model


def normalise(pixels: NDArray[np.uint8] | Tensor) -> Tensor:
    """(b, h, w, 3) uint8 to (b, 3, h, w) float32 with mean = std = .5, in channels_last memory."""
    tensor = torch.as_tensor(pixels)
    return tensor.permute(0, 3, 1, 2).float().mul_(1 / 127.5).sub_(1.0)


def _load_backbone(model: DescriptorModel, backbone: str, source: str) -> None:
    """Load a whole classifier's weights by order and shape, and keep the backbone's part.

    The package's tensors stand in timm's order under other names, so order and shapes decide.
    """
    classifier = timm.create_model(resolve_backbone(backbone), pretrained=False)
    path = _package_file(source.removeprefix("package:")) if source.startswith("package:") else Path(source)
    given = read_tensors(path)
    wanted = classifier.state_dict()
    if set(given) != set(wanted):
        shapes = [tuple(tensor.shape) for tensor in given.values()]
        if shapes != [tuple(tensor.shape) for tensor in wanted.values()]:
            raise DataError(f"{path.name} holds {len(given)} tensors that are not {backbone}'s {len(wanted)}")
        given = dict(zip(wanted, given.values(), strict=True))
    names = model.backbone.state_dict().keys()
    model.backbone.load_state_dict({name: given[name] for name in names})


def _package_file(package: str) -> Path:
    module = package.replace("-", "_")
    try:
        files = importlib.resources.files(module)
    except ModuleNotFoundError:
        try:
            files = importlib.resources.files(module.removesuffix("_model"))
        except ModuleNotFoundError as error:
            raise UsageError(f"model.pretrained: package {package} is not installed: pip install {package}") from error
    found = [path for path in Path(str(files)).rglob("*") if path.suffix in {".pth", ".pt"}]
    if len(found) != 1:
        raise DataError(f"model.pretrained: package {package} holds {len(found)} weight files, expected one")
    return found[0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A file of named tensors, read without running code from it; raises DataError."""
    loaded = read_pickled(path)
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise DataError(f"weights {path}: expected a mapping of names to tensors")
    check_tensors(path, loaded)
    return loaded
