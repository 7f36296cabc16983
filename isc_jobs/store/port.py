"""The artifact store's port: objects by key, with conditional writes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from isc_jobs.spec.errors import DataError, TemporaryError, UsageError

PART_BYTES = 32 << 20  # larger objects come and go in parts of this size,
CONNECTIONS = 4  # so many at once
_SEGMENT = re.compile(r"[A-Za-z0-9._=-]{1,200}")  # of 255 that a file system allows, for names made of them
_LONGEST = 900  # characters of a key, of 1024 that S3 allows, for a prefix


class NotFound(DataError):
    """No object of that key."""


class Conflict(TemporaryError):
    """The condition of a conditional write did not hold."""


@dataclass(frozen=True)
class ObjectInfo:
    """A stored object: its key, size in bytes and entity tag."""

    key: str
    size: int
    etag: str


class Store(Protocol):
    """Objects by key. Every write is atomic: a reader sees the old object or the new one."""

    uri: str

    def stat(self, key: str) -> ObjectInfo | None:
        """What is stored there, None if nothing."""

    def get(self, key: str) -> tuple[bytes, str]:
        """Content and entity tag; raises NotFound."""

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        """Write, return the entity tag; raises Conflict if one exists or it is another."""

    def upload(self, key: str, path: Path) -> None:
        """Write a file of any size."""

    def download(self, key: str, path: Path) -> None:
        """Read into a file, which appears whole; raises NotFound."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with ``prefix``, sorted by key."""

    def delete(self, key: str) -> None:
        """Remove; an absent object is fine."""

    def link(self, key: str, kind: str, seconds: int) -> str:
        """An address that a browser opens, for so long where it gives away a right; ``kind``: as text/html."""


def check_prefix(prefix: str) -> str:
    """What keys may begin with: plain names, of which the last may be a part of one, or empty; raises UsageError."""
    folder, slash, rest = prefix.rpartition("/")
    if slash:
        check_key(folder)
    if rest:
        check_key(rest)
    return prefix


def check_key(key: str) -> str:
    """The key, if each of its segments is a plain name; raises UsageError (no path leaves the store)."""
    if len(key) > _LONGEST:
        raise UsageError(f"object key {key[:100]!r}… has {len(key)} characters, at most {_LONGEST} are allowed")
    for segment in key.split("/"):
        if not _SEGMENT.fullmatch(segment) or segment in {".", ".."}:
            raise UsageError(
                f"object key {key!r}: segment {segment!r} may hold only letters, digits and . _ = -, at most 200"
            )
    return key
