"""Batch norm over all processes, and frozen batch norm.

torch's SyncBatchNorm refuses CPU tensors; ``GlooBatchNorm`` does the same on them.
"""

from typing import Any, cast

import torch
from timm import layers
from torch import Tensor, nn

from isc_jobs.training.distributed import World, sum_over_ranks

_BatchNorm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the one base class of all batch norms


class GlooBatchNorm(nn.Module):
    """Batch norm of (n, c, …) with statistics over all ranks; takes over a module's weights and activation."""

    def __init__(self, original: nn.Module) -> None:
        """Share the parameters and buffers of a BatchNorm (or timm's BatchNormAct2d)."""
        super().__init__()
        norm = cast("nn.BatchNorm2d", original)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps, self.momentum = norm.eps, norm.momentum
        self.drop = getattr(original, "drop", nn.Identity())
        self.act = getattr(original, "act", nn.Identity())
        self.train(original.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised and activated, the same shape."""
        exact = x.to(torch.promote_types(x.dtype, self.weight.dtype))  # mixed precision is too coarse for sums
        mean, variance = self._statistics(exact) if self.training else (self.running_mean, self.running_var)
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        normed = (exact - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)
        return cast("Tensor", self.act(self.drop(normed.to(x.dtype))))

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (c,) over all ranks; moves the running ones."""
        dims = [dim for dim in range(x.dim()) if dim != 1]
        count = sum_over_ranks(torch.tensor(float(x.numel() // x.shape[1]), device=x.device))
        mean = sum_over_ranks(x.sum(dims)) / count
        centred = x - mean.view([1, -1] + [1] * (x.dim() - 2))
        variance = sum_over_ranks(centred.square().sum(dims)) / count
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
            self.num_batches_tracked += 1
        return mean, variance


def synchronise(model: nn.Module, world: World) -> nn.Module:
    """The model with batch norms over all ranks; unchanged for one process."""
    if world.size == 1:
        return model
    if world.device.type == "cuda":
        return cast("nn.Module", cast("Any", layers).convert_sync_batchnorm(model))
    _replace(model)
    return model


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, GlooBatchNorm(child))
        else:
            _replace(child)


def train_mode(model: nn.Module, *, frozen: bool) -> None:
    """Training mode; ``frozen`` keeps all batch norms on their running statistics."""
    model.train()
    if frozen:
        for module in model.modules():
            if isinstance(module, (_BatchNorm, GlooBatchNorm)):
                module.eval()
