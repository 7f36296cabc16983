"""TensorFlow's SAME padding within the convolution: no padded copy of its input, which takes longer than the rest.

An even side at stride 2 is padded by one more after it than before. A kernel with a row and a column of zeros before
its own has the same sums with equal padding, which a convolution does by itself.
"""

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same_arg
from torch import Tensor, nn
from torch.nn import functional


class SamePaddedConv2d(Conv2dSame):
    """Timm's convolution, faster on CPUs; elsewhere, dilated, and where it is exported, it is timm's."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, in, h, w) to (b, out, ceil(h / stride), ceil(w / stride))."""
        if x.device.type != "cpu" or torch.compiler.is_exporting() or max(self.dilation) > 1:
            plain: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return plain
        sizes = (list(part) for part in (x.shape[-2:], self.kernel_size, self.stride, self.dilation))
        left, right, top, bottom = pad_same_arg(*sizes)
        more = right - left, bottom - top
        weight = functional.pad(self.weight, (more[0], 0, more[1], 0)) if any(more) else self.weight
        return functional.conv2d(x, weight, self.bias, self.stride, (bottom, right), self.dilation, self.groups)


def pad_within_convolutions(model: nn.Module) -> None:
    """Make all of a timm model's convolutions with SAME padding such ones; weights and names stay."""
    for module in model.modules():
        if type(module) is Conv2dSame:
            module.__class__ = SamePaddedConv2d
