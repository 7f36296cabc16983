"""Files of torch.save, read without running anything from them and without more memory than they have bytes."""

import argparse
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isc_jobs.spec.errors import DataError, UsageError

# Whatever torch's and zipfile's readers let through on damaged bytes.
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, LookupError, AttributeError, TypeError, ArithmeticError,
               MemoryError, AssertionError, struct.error, zipfile.BadZipFile)  # fmt: skip


def read_pickled(path: Path, device: torch.device | str = "cpu") -> Any:
    """Tensors, plain values and argparse.Namespace; raises UsageError for no file, DataError for anything else."""
    try:
        _check_size(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UsageError(f"weights {path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise DataError(f"weights {path} are refused: they hold more than tensors and plain values") from error
    except _UNREADABLE as error:
        raise DataError(f"weights {path}: the file is cut short or damaged ({brief(error)})") from error


def check_tensors(path: Path, tensors: dict[Any, Tensor]) -> None:
    """Raises DataError for a tensor that is not numbers in memory, one for each of its places."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
            raise DataError(f"weights {path}: {name!r} is sparse, quantised or without data: expected plain tensors")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise DataError(f"weights {path}: {name!r} claims {tuple(tensor.shape)}, more than the file has data for")


def brief(error: BaseException) -> str:
    """The beginning of what a library says."""
    return " ".join(str(error).split())[:120]


def _check_size(path: Path) -> None:
    """Raises DataError for a zip whose entries are compressed, which torch never writes and which may be a bomb."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        claimed, there = sum(info.file_size for info in archive.infolist()), path.stat().st_size
    if claimed > there:
        raise DataError(f"weights {path} are refused: {there} bytes that claim to be {claimed}, as no checkpoint's are")
