"""Which pictures go into which shard: a plan from the source's listing alone, whichever pictures turn out bad.

Keys lie on disk, sorted by a B-tree, so that memory does not grow with the listing.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from isc_jobs.spec.errors import DataError, TemporaryError, UsageError
from isc_jobs.store.port import ObjectInfo
from isc_jobs.store.source import FOLDERS

IMAGES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "jp2", "avif"}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Of two with one id the first listed comes first. A listing is almost in this order, which a B-tree likes.
_TABLE = """
CREATE TABLE pictures (name TEXT, id TEXT, number INTEGER, key TEXT, size INTEGER, PRIMARY KEY (name, id, number))
WITHOUT ROWID
"""
_Row = tuple[str, str, int, str, int]  # set, id, place in the listing, key, bytes


@dataclass(frozen=True)
class Shard:
    """Pictures of one set, from the first id to the last."""

    name: str  # as train-00000
    set: str
    count: int
    first: str
    last: str


class Plan:
    """All shards, set by set; files in the sets' folders that are no pictures; tables beside the folders."""

    def __init__(self, infos: Iterable[ObjectInfo], uri: str, shard_bytes: int, path: Path) -> None:
        """Fill shards up to ``shard_bytes`` of pictures, but one at least; ``uri`` names the source in errors.

        Keys are kept in a new file at ``path``, until ``close``. Raises UsageError or DataError for a wrong layout.
        """
        self.ignored = 0
        self.tables: set[str] = set()
        path.unlink(missing_ok=True)
        self._file = sqlite3.connect(path)
        try:
            self._file.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLE)
            self._file.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?, ?)", self._pictures(infos, uri))
        except sqlite3.OperationalError as error:
            raise TemporaryError(f"{path}: the plan of shards cannot be written ({error}): free space") from error
        self.shards = tuple(self._cut(uri, shard_bytes))
        if not {"train", "reference"} & set(self.sets):
            raise UsageError(
                f"source {uri} holds no pictures in train_images/ or reference_images/: "
                "make such a data set with `isc-jobs dataset make`"
            )

    @property
    def total(self) -> int:
        """How many pictures."""
        return sum(shard.count for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Of all pictures, as they were listed."""
        return int(self._file.execute("SELECT total(size) FROM pictures").fetchone()[0])

    @property
    def sets(self) -> list[str]:
        """Names of the sets, in the shards' order."""
        return list(dict.fromkeys(shard.set for shard in self.shards))

    def ids(self, name: str) -> Iterator[str]:
        """Of all pictures of a set."""
        return (id_ for (id_,) in self._file.execute("SELECT id FROM pictures WHERE name = ?", (name,)))

    def keys(self, shard: Shard) -> Iterator[str]:
        """Of a shard's pictures, in the order of their ids."""
        found = self._file.execute(
            "SELECT key FROM pictures WHERE name = ? AND id BETWEEN ? AND ? ORDER BY id",
            (shard.set, shard.first, shard.last),
        )
        return (key for (key,) in found)

    def close(self) -> None:
        """Forget the keys."""
        self._file.close()

    def _pictures(self, infos: Iterable[ObjectInfo], uri: str) -> Iterator[_Row]:
        """Notes all else on the way; raises DataError for an unsafe id."""
        for number, info in enumerate(infos):
            folder, _, rest = info.key.partition("/")
            if not rest:
                self.tables |= {info.key} if info.key.endswith(".csv") else set()
            elif folder in FOLDERS and not _is_picture(rest):
                self.ignored += 1
            elif folder in FOLDERS:
                id_ = picture_id(info.key)
                if not _ID.fullmatch(id_):
                    raise DataError(f"{uri}: {info.key!r}: an id may hold letters, digits and . _ - and 64 characters")
                yield FOLDERS[folder], id_, number, info.key, info.size

    def _cut(self, uri: str, shard_bytes: int) -> Iterator[Shard]:
        rows = self._file.execute("SELECT name, id, key, size FROM pictures ORDER BY name, id, number")
        for name, pictures in groupby(rows, itemgetter(0)):
            parts = _fill(_distinct(pictures, uri), shard_bytes)
            yield from (Shard(f"{name}-{number:05d}", name, *part) for number, part in enumerate(parts))


def picture_id(key: str) -> str:
    """The file's name without its extension."""
    return key.rpartition("/")[2].rpartition(".")[0]


def _is_picture(name: str) -> bool:
    """Whether a file in a set's folder is one by its name: not hidden, nor deeper, nor of another kind."""
    stem, _, extension = name.rpartition(".")
    return bool(stem) and not name.startswith(".") and "/" not in name and extension.lower() in IMAGES


def _distinct(pictures: Iterable[tuple[str, str, str, int]], uri: str) -> Iterator[tuple[str, int]]:
    """Id and bytes of a set's pictures in the ids' order; raises DataError for an id that is there twice."""
    before, where = None, ""
    for _, id_, key, size in pictures:
        if id_ == before:
            raise DataError(f"{uri}: id {id_} is there twice: {where} and {key}")
        yield id_, size
        before, where = id_, key


def _fill(pictures: Iterable[tuple[str, int]], shard_bytes: int) -> Iterator[tuple[int, str, str]]:
    """Count, first and last id of each shard: a new one begins where the next picture would be too much."""
    count, filled, first, last = 0, 0, "", ""
    for id_, size in pictures:
        if filled and filled + size > shard_bytes:
            yield count, first, last
            count, filled = 0, 0
        first, last = first if count else id_, id_
        count, filled = count + 1, filled + size
    if count:
        yield count, first, last
