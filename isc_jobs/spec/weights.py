"""Kinds of weight files, told by their first bytes."""

from pathlib import Path
from typing import Literal

from isc_jobs.spec.errors import DataError, UsageError

WeightsKind = Literal["zip", "legacy", "safetensors"]
SUFFIXES = (".pth.tar", ".pth", ".pt", ".safetensors")
_HEAD_BYTES = 9
_LARGEST_HEADER = 100_000_000  # bytes, the safetensors format's own bound
_NAMED = 3  # files of a folder


def weights_kind(head: bytes) -> WeightsKind | None:
    """What a file that begins with ``head`` is: PyTorch's zip, PyTorch's before 1.6, safetensors; None for others."""
    if head.startswith(b"PK"):
        return "zip"
    if head.startswith(b"\x80\x02"):
        return "legacy"
    if len(head) >= _HEAD_BYTES and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return "safetensors"
    return None


def check_weights(path: Path) -> WeightsKind:
    """The kind of a weights file.

    Raises UsageError for what cannot be read as a file, DataError for what is not a weights file by its beginning.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise UsageError(f"weights {path}: no such file") from error
    except IsADirectoryError as error:
        raise UsageError(f"weights {path}: a folder was found, expected a file; {_held(path)}") from error
    except OSError as error:
        raise UsageError(f"weights {path}: {error.strerror}") from error
    if not head:
        raise DataError(f"weights {path}: the file is empty")
    kind = weights_kind(head)
    if kind is None:
        raise DataError(f"weights {path}: the file is no PyTorch checkpoint and no safetensors file")
    return kind


def _held(folder: Path) -> str:
    files = sorted(str(path) for path in folder.rglob("*") if path.name.endswith(SUFFIXES))
    if not files:
        return f"it holds none that ends in {', '.join(SUFFIXES)}"
    return f"it holds {', '.join(files[:_NAMED])}" + (f" and {len(files) - _NAMED} more" if files[_NAMED:] else "")
