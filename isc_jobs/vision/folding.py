"""Batch norms folded into the convolutions before them: the same function in evaluation, with fewer passes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_PROBE = (1, 3, 64, 64)
_Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
_Node = Any  # of autograd's graph


def fold_batch_norms(model: nn.Module) -> int:
    """Fold, in place, every 2-d batch norm that is the only one to see a convolution's output; how many these are.

    The model is in evaluation mode, on the CPU, takes pictures (b, 3, h, w) and returns a list of feature maps. Weights
    are computed in float64.
    """
    names = {module: name for name, module in model.named_modules()}
    pairs = _pairs(model)
    for conv, norm in pairs:
        bias = None if conv.bias is None else conv.bias.double()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, shift = fuse_conv_bn_weights(
            conv.weight.double(), bias, norm.running_mean.double(), norm.running_var.double(), norm.eps,
            norm.weight.double(), norm.bias.double(),
        )  # fmt: skip
        conv.weight, conv.bias = nn.Parameter(weight.to(conv.weight.dtype)), nn.Parameter(shift.to(conv.weight.dtype))
        model.set_submodule(names[norm], _rest(norm))
    return len(pairs)


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What timm's batch norms do beside normalising."""
    parts = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    kept = [part for part in parts if not isinstance(part, nn.Identity)]
    return kept[0] if len(kept) == 1 else nn.Sequential(*kept)


def _pairs(model: nn.Module) -> list[_Pair]:
    """By autograd's graph of one forward pass, which knows where every output goes."""
    made: list[tuple[nn.Conv2d, _Node]] = []
    taken: list[tuple[nn.BatchNorm2d, _Node]] = []
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda conv, _, y: made.append((conv, y.grad_fn))))
        if isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(lambda norm, x: taken.append((norm, x[0].grad_fn))))
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            uses = _uses(model(torch.zeros(_PROBE).requires_grad_()))
    finally:
        for hook in hooks:
            hook.remove()
    calls = Counter(module for module, _ in (*made, *taken))
    convolutions = {node: conv for conv, node in made if uses[node] == 1 and calls[conv] == 1}
    return [(convolutions[node], norm) for norm, node in taken if node in convolutions and calls[norm] == 1]


def _uses(outputs: Sequence[Tensor]) -> Counter[_Node]:
    """How often each node is an output, or something that the outputs depend on has it as an input."""
    waiting: list[_Node] = [output.grad_fn for output in outputs]
    uses: Counter[_Node] = Counter(waiting)
    seen = set(waiting)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            uses[node] += 1
            if node is not None and node not in seen:
                seen.add(node)
                waiting.append(node)
    return uses
