"""Which pictures go into which shard: a plan from the source's listing alone, whichever pictures turn out bad."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.store.port import ObjectInfo
from isc_jobs.store.source import FOLDERS

IMAGES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "jp2", "avif"}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_Entry = tuple[str, int]  # key, bytes; plain, for there are millions


@dataclass(frozen=True)
class Shard:
    """Pictures of one set in the order of their ids."""

    name: str  # as train-00000
    set: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All shards, set by set; files in the sets' folders that are none of them; files beside the folders."""

    shards: tuple[Shard, ...]
    ignored: int
    beside: frozenset[str]

    @property
    def total(self) -> int:
        """How many pictures."""
        return sum(len(shard.keys) for shard in self.shards)

    @property
    def sets(self) -> list[str]:
        """Names of the sets, in the shards' order."""
        return list(dict.fromkeys(shard.set for shard in self.shards))

    def ids(self, name: str) -> Iterator[str]:
        """Of all pictures of a set."""
        return (picture_id(key) for shard in self.shards if shard.set == name for key in shard.keys)


def plan_shards(infos: Iterable[ObjectInfo], uri: str, shard_bytes: int) -> Plan:
    """Fill shards up to ``shard_bytes`` of pictures, but one at least; ``uri`` names the source in errors.

    Raises UsageError or DataError for a wrong layout.
    """
    sets: dict[str, list[_Entry]] = {}
    ignored, beside = 0, set()
    for info in infos:
        folder, _, rest = info.key.partition("/")
        if not rest:
            beside.add(info.key)
        elif folder in FOLDERS and not _is_picture(rest):
            ignored += 1
        elif folder in FOLDERS:
            sets.setdefault(FOLDERS[folder], []).append((info.key, info.size))
    if not {"train", "reference"} & set(sets):
        raise UsageError(
            f"source {uri} holds no pictures in train_images/ or reference_images/: "
            "make such a data set with `isc-jobs dataset make`"
        )
    shards: list[Shard] = []
    for name in sorted(sets):
        entries = sets.pop(name)
        _order(entries, uri)
        shards += _cut(name, entries, shard_bytes)
    return Plan(tuple(shards), ignored, frozenset(beside))


def picture_id(key: str) -> str:
    """The file's name without its extension."""
    return key.rpartition("/")[2].rpartition(".")[0]


def _is_picture(name: str) -> bool:
    """Whether a file in a set's folder is one by its name: not hidden, nor deeper, nor of another kind."""
    stem, _, extension = name.rpartition(".")
    return bool(stem) and not name.startswith(".") and "/" not in name and extension.lower() in IMAGES


def _order(entries: list[_Entry], uri: str) -> None:
    """Sort by id; raises DataError for an id that is unsafe or there twice."""
    for key, _ in entries:
        if not _ID.fullmatch(picture_id(key)):
            raise DataError(f"{uri}: {key!r}: an id may hold letters, digits and . _ - and 64 characters")
    entries.sort(key=lambda entry: picture_id(entry[0]))  # stable: of two with one id, the first listed stays first
    for (first, _), (second, _) in pairwise(entries):
        if picture_id(first) == picture_id(second):
            raise DataError(f"{uri}: id {picture_id(first)} is there twice: {first} and {second}")


def _cut(name: str, entries: list[_Entry], shard_bytes: int) -> list[Shard]:
    """A new shard begins where the next picture would be too much."""
    begins, filled = [0], 0
    for position, (_, size) in enumerate(entries):
        if filled and filled + size > shard_bytes:
            begins.append(position)
            filled = 0
        filled += size
    slices = pairwise([*begins, len(entries)])
    return [
        Shard(f"{name}-{number:05d}", name, tuple(key for key, _ in entries[begin:end]))
        for number, (begin, end) in enumerate(slices)
    ]
