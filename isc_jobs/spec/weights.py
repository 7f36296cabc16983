"""Kinds of weight files, told by their first bytes."""

from typing import Literal

WeightsKind = Literal["zip", "legacy", "safetensors"]
HEAD_BYTES = 9  # what ``weights_kind`` needs of a file
_LARGEST_HEADER = 100_000_000  # bytes, the safetensors format's own bound


def weights_kind(head: bytes) -> WeightsKind | None:
    """What a file that begins with ``head`` is: PyTorch's zip, PyTorch's before 1.6, safetensors; None for others."""
    if head.startswith(b"PK"):
        return "zip"
    if head.startswith(b"\x80\x02"):
        return "legacy"
    if len(head) >= HEAD_BYTES and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return "safetensors"
    return None
