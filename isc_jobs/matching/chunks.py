"""Descriptors kept in a work folder: each file holds those of some pictures, and is written whole or not at all."""

import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isc_jobs.matching.pictures import digest
from isc_jobs.spec.plain import plain

Matrix = NDArray[np.float32]
_KEY = "S32"
# Whatever numpy's and zipfile's readers let through on damaged bytes.
_UNREADABLE = (OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, ArithmeticError, RuntimeError,
               MemoryError, SyntaxError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error,
               tokenize.TokenError)  # fmt: skip


def _check_size(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises ValueError for arrays that are compressed, which is not done here and may be a bomb."""
    claimed = sum(info.file_size for info in archive.infolist())
    if claimed > path.stat().st_size:
        raise ValueError(f"it claims {claimed} bytes")


class Chunks:
    """What is described, by the pictures' keys; and which pictures are bad, with reasons."""

    def __init__(self, folder: Path) -> None:
        """Read all files of the folder; damaged ones are named, removed and described again."""
        self._folder = folder
        self._places: dict[str, tuple[Path, int]] = {}
        self.bad: dict[str, str] = {}
        for path in sorted(folder.glob("*.npz")):
            try:
                self._index(path)
            except _UNREADABLE as error:
                print(plain(f"{path} is damaged and is made again: {error}"[:300]), flush=True)
                path.unlink()

    def _index(self, path: Path) -> None:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            _check_size(file.zip, path)
            keys, rows, bad, reasons = (file[name] for name in ("keys", "rows", "bad", "reasons"))
        shapes = keys.dtype, bad.dtype, reasons.dtype.kind, rows.dtype, keys.shape, reasons.shape
        if shapes != (_KEY, _KEY, "U", np.float32, rows.shape[:1], bad.shape) or rows.ndim != 2 or bad.ndim != 1:
            raise ValueError(f"keys {keys.dtype} {keys.shape}, rows {rows.dtype} {rows.shape}")
        self._places.update({key.decode(): (path, place) for place, key in enumerate(keys)})
        self.bad.update({key.decode(): str(reason) for key, reason in zip(bad, reasons, strict=True)})

    def __contains__(self, key: str) -> bool:
        """Whether a picture is described, or known to be bad."""
        return key in self._places or key in self.bad

    def has_row(self, key: str) -> bool:
        """Whether a picture has a descriptor."""
        return key in self._places

    def keep(self, keys: Sequence[str], rows: Matrix, bad: Mapping[str, str]) -> None:
        """Write a file of descriptors (n, d) and bad pictures; it is there after a crash of the machine."""
        path = self._folder / f"{digest(*keys, *bad)}.npz"
        temporary = path.with_suffix(f".{os.getpid()}")
        reasons = np.array(list(bad.values()), dtype=np.str_)
        with temporary.open("wb") as file:
            np.savez(file, keys=np.array(keys, _KEY), rows=rows, bad=np.array(list(bad), _KEY), reasons=reasons)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self._places.update({key: (path, place) for place, key in enumerate(keys)})
        self.bad.update(bad)

    def gather(self, keys: Sequence[str], out: Matrix) -> None:
        """Fill ``out`` (n, d) with the descriptors of ``keys``, one file in memory at a time."""
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for target, key in enumerate(keys):
            path, place = self._places[key]
            wanted.setdefault(path, []).append((target, place))
        for path, pairs in wanted.items():
            targets, places = np.array(pairs).T
            with np.load(path, allow_pickle=False) as file:
                out[targets] = file["rows"][places]
