"""The pictures of a folder: their ids, and the facts by which their descriptors are kept."""

import hashlib
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from isc_jobs.spec.errors import UsageError
from isc_jobs.store.source import check_folder

SUFFIXES = (
    ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jp2", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".pnm", ".ppm", ".tif",
    ".tiff", ".webp",
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A file; its id is its path within the folder."""

    id: str
    path: str  # absolute
    size: int  # bytes
    changed: int  # nanoseconds

    @cached_property
    def key(self) -> str:
        """Changes with the file: 32 hexadecimal digits of path, size and time of change."""
        return digest(self.path, str(self.size), str(self.changed))


@dataclass(frozen=True)
class Listing:
    """Pictures of a folder by id, and what could not be looked at, with reasons."""

    pictures: list[Picture]
    unread: list[tuple[str, str]]


def digest(*parts: str) -> str:
    """32 hexadecimal digits of texts, which may hold undecodable file names."""
    return hashlib.sha256(b"\0".join(part.encode("utf-8", "surrogateescape") for part in parts)).hexdigest()[:32]


def list_pictures(folder: Path) -> Listing:
    """All files with a picture's suffix in a folder and those below; links to folders are not followed.

    Raises UsageError for no folder, or one without pictures.
    """
    check_folder(folder, "give a folder that holds pictures")
    root = folder.resolve()
    listing = Listing([], [])

    def unread(error: OSError) -> None:
        listing.unread.append((os.path.relpath(error.filename, root), _reason(error)))

    for place, _, names in os.walk(root, onerror=unread):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                _add(listing, root, os.path.join(place, name))  # noqa: PTH118 - a Path for each of a million is slow
    if not listing.pictures and not listing.unread:
        raise UsageError(f"{folder} holds no pictures: expected files that end in {', '.join(SUFFIXES)}")
    listing.pictures.sort(key=lambda picture: picture.id)
    listing.unread.sort()
    return listing


def _add(listing: Listing, root: Path, path: str) -> None:
    id_ = os.path.relpath(path, root)
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError as error:
        listing.unread.append((id_, _reason(error)))
        return
    if stat.S_ISREG(found.st_mode):
        listing.pictures.append(Picture(id_, path, found.st_size, found.st_mtime_ns))


def _reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"
