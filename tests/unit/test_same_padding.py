"""Padding within the convolution gives timm's numbers and gradients, whatever the sizes."""

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame

from isc_jobs.spec.profile import load_settings
from isc_jobs.vision.model import build_model
from isc_jobs.vision.same_padding import SamePaddedConv2d, pad_within_convolutions


@pytest.mark.parametrize("size", [(32, 32), (33, 33), (32, 33), (7, 4), (2, 1), (1, 1)])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_outputs_and_gradients_are_timms(size: tuple[int, int], kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    theirs, ours = (Conv2dSame(4, 8, kernel, stride, dilation=dilation, groups=2).double() for _ in range(2))
    ours.load_state_dict(theirs.state_dict())
    pad_within_convolutions(ours)
    assert type(ours) is SamePaddedConv2d
    results = []
    for model in (theirs, ours):
        x = torch.randn(2, 4, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = model(x)
        assert model.bias is not None
        (y**2).sum().backward()
        results.append((y, x.grad, model.weight.grad, model.bias.grad))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_models_are_built_with_it() -> None:
    model = build_model(load_settings("demo").model, pretrained=False)
    kinds = [type(module) for module in model.modules() if isinstance(module, Conv2dSame)]
    assert set(kinds) == {SamePaddedConv2d}
