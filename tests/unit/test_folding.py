"""Batch norms folded into convolutions: the same descriptors."""

import copy

import pytest
import torch
from torch import Tensor, nn

from isc_jobs.vision.folding import fold_batch_norms
from isc_jobs.vision.model import DescriptorModel


def with_statistics(model: nn.Module) -> nn.Module:
    """In evaluation mode, with batch norms that do something."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            channels = module.num_features
            module.running_mean = torch.randn(channels, generator=generator) / 10
            module.running_var = 0.5 + torch.rand(channels, generator=generator)
            module.weight.data = 0.5 + torch.rand(channels, generator=generator)
            module.bias.data = torch.randn(channels, generator=generator) / 10
    return model.eval()


def batch_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    ("arch", "folded", "left"), [("tf_efficientnet_lite0", 48, 0), ("resnet18", 20, 0), ("resnetv2_50", 32, 16)]
)
def test_descriptors_are_the_same_without_batch_norms(arch: str, folded: int, left: int) -> None:
    torch.manual_seed(0)
    model = DescriptorModel(arch, 256, 3.0)
    with_statistics(model)
    pictures = torch.randn(4, 3, 96, 80)
    with torch.inference_mode():
        before = model(pictures)
        assert fold_batch_norms(model.backbone) == folded
        assert batch_norms(model) == left
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
        torch.testing.assert_close(model(pictures), before, rtol=0, atol=1e-5)


def test_the_recipes_backbone_has_none_left() -> None:
    """Random weights amplify every rounding a millionfold, so its first blocks are held against one another."""
    torch.manual_seed(0)
    model = DescriptorModel("tf_efficientnetv2_m.in21k_ft_in1k", 256, 3.0).backbone
    with_statistics(model)
    folded = copy.deepcopy(model)
    assert fold_batch_norms(folded) == 156
    assert batch_norms(folded) == 0
    x = y = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for stage in ("conv_stem", "bn1", "blocks.0", "blocks.1"):
            x, y = model.get_submodule(stage)(x), folded.get_submodule(stage)(y)
    torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3 * x.abs().max().item())


def test_the_same_in_inference_mode_and_with_frozen_weights() -> None:
    model = DescriptorModel("resnet18", 256, 3.0).eval().requires_grad_(requires_grad=False)
    with torch.inference_mode():
        assert fold_batch_norms(model.backbone) == 20


class _Branching(nn.Module):
    """The convolution's output goes past the batch norm too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.conv(x)
        return [y + self.bn(y)]


class _Recurrent(_Branching):
    """The same convolution twice, under one batch norm."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.bn(self.conv(x)) + self.conv(x)]


class _Returning(_Branching):
    """The convolution's output is an output itself."""

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.conv(x)
        return [y, self.bn(y)]


@pytest.mark.parametrize("kind", [_Branching, _Recurrent, _Returning])
def test_what_would_change_the_result_is_left_as_it_is(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = with_statistics(kind())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert fold_batch_norms(model) == 0
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
