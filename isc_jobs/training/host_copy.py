"""A copy of a training's state in host memory, which the next step cannot change."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class HostCopy:
    """Takes copies into buffers that it keeps, page-locked for a GPU's tensors: each take overwrites the last."""

    def __init__(self) -> None:
        """Buffers are made by the first take."""
        self._buffers: dict[tuple[object, ...], Tensor] = {}

    def take(self, state: dict[str, Any]) -> dict[str, Any]:
        """The same nested dictionaries and lists with every tensor copied, complete on return.

        A tuple is a value, not looked into: it may hold no tensors.
        """
        with _one_thread():
            copied: dict[str, Any] = self._copy(state, ())
        if any(buffer.is_pinned() for buffer in self._buffers.values()):
            torch.cuda.synchronize()
        return copied

    def _copy(self, value: Any, path: tuple[object, ...]) -> Any:
        """``path`` of keys and positions names a tensor's buffer."""
        if isinstance(value, Tensor):
            return self._copy_tensor(value.detach(), path)
        if isinstance(value, dict):
            return {key: self._copy(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._copy(item, (*path, place)) for place, item in enumerate(value)]
        return value

    def _copy_tensor(self, tensor: Tensor, path: tuple[object, ...]) -> Tensor:
        buffer = self._buffers.get(path)
        if buffer is None or _form(buffer) != _form(tensor):
            buffer = self._buffers[path] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        return buffer.copy_(tensor, non_blocking=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Memory sets the pace; threads that share processors with others would wait for one another at every tensor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.stride()
