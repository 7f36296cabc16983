"""Tar shards (WebDataset-compatible) with an offset index, for random access without unpacking."""

import bisect
import csv
import os
import tarfile
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import BinaryIO, Protocol

from isc_jobs.spec.documents import parse_json
from isc_jobs.spec.errors import DataError

_TOO_LARGE = 1 << 62  # bytes or pixels


class Files(Protocol):
    """Where shards are read from: a stage's output."""

    def path(self, name: str) -> Path:
        """A local verified file."""


@dataclass(frozen=True)
class IndexRow:
    """One picture of a shard: offset and size in bytes within the tar, width and height in pixels."""

    id: str
    member: str
    offset: int
    size: int
    width: int
    height: int


@dataclass(frozen=True)
class Picture:
    """A verified picture on its way into a shard."""

    id: str
    extension: str
    data: bytes
    width: int
    height: int


def write_shard(path: Path, pictures: Iterable[Picture]) -> None:
    """Write a tar with fixed times and owners, and its index as .csv beside it; a picture in memory at a time."""
    index = path.with_suffix(".csv")
    with path.open("wb") as file, index.open("w", newline="", encoding="utf-8") as rows:
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(column.name for column in fields(IndexRow))
        for picture in pictures:
            member = tarfile.TarInfo(f"{picture.id}.{picture.extension}")
            member.size = len(picture.data)
            file.write(member.tobuf(tarfile.USTAR_FORMAT))
            row = IndexRow(picture.id, member.name, file.tell(), member.size, picture.width, picture.height)
            writer.writerow(astuple(row))
            file.write(picture.data)
            _pad(file, tarfile.BLOCKSIZE)
        file.write(bytes(2 * tarfile.BLOCKSIZE))
        _pad(file, tarfile.RECORDSIZE)


def _pad(file: BinaryIO, multiple: int) -> None:
    """Zeros up to a multiple of so many bytes."""
    file.write(bytes(-file.tell() % multiple))


def read_index(path: Path) -> list[IndexRow]:
    """Rows of a shard's index; raises DataError if it is no index."""
    with path.open(newline="", encoding="utf-8") as file:
        try:
            return [_index_row(row) for row in csv.DictReader(file)]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise DataError(
                f"{path.name} is no shard index: expected columns id, member, offset, size, width, height, and "
                f"numbers from 0 in the last four ({error})"
            ) from error


def _index_row(row: dict[str, str]) -> IndexRow:
    numbers = [int(row[name]) for name in ("offset", "size", "width", "height")]
    if row["id"] is None or row["member"] is None or not all(0 <= number < _TOO_LARGE for number in numbers):
        raise ValueError(f"found {row['id']!r}, {row['member']!r}, {', '.join(map(str, numbers))}")
    return IndexRow(row["id"], row["member"], *numbers)


def _shards_of(manifest: Path, name: str) -> list[str]:
    """File names of a set's shards; raises DataError for what is no manifest of shards."""
    sets = parse_json(manifest.read_bytes(), manifest.name).get("sets")
    shards = sets.get(name, {"shards": []}) if isinstance(sets, dict) else None
    names = shards.get("shards") if isinstance(shards, dict) else None
    if not isinstance(names, list) or not all(isinstance(shard, str) for shard in names):
        raise DataError(f"{manifest.name} is damaged: expected sets.{name}.shards to be a list of file names")
    return names


class ShardSet:
    """All pictures of one set, by position; positions follow ids, sorted."""

    def __init__(self, files: Files, name: str) -> None:
        """Read the indexes of set ``name``; a set that the data lack is empty."""
        self._files = files
        self._shards: list[str] = _shards_of(files.path("manifest.json"), name)
        self._rows: list[IndexRow] = []
        self._ends: list[int] = []
        for shard in self._shards:
            self._rows += read_index(files.path(shard.removesuffix(".tar") + ".csv"))
            self._ends.append(len(self._rows))
        self.ids = [row.id for row in self._rows]
        self._descriptors: dict[tuple[int, int], int] = {}  # by process, so that forked workers share none

    @property
    def shards(self) -> list[tuple[str, range]]:
        """File of each shard and the positions of its pictures."""
        return list(zip(self._shards, map(range, [0, *self._ends], self._ends), strict=True))

    def fetch(self, shard: str) -> None:
        """Have a shard's file on this machine, before several processes ask for it."""
        self._files.path(shard)

    def __len__(self) -> int:
        """How many pictures."""
        return len(self._rows)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one picture; raises IndexError, and DataError if the shard was cut."""
        index = range(len(self._rows))[index]  # as a list takes it: from the end, or refused
        row = self._rows[index]
        descriptor = self._descriptor(bisect.bisect_right(self._ends, index))
        there = max(0, os.fstat(descriptor).st_size - row.offset)
        if there < row.size:  # before so many bytes are asked for
            raise DataError(f"shard of {row.member!r} ends early: {there} of {row.size} bytes")
        return os.pread(descriptor, row.size, row.offset)

    def _descriptor(self, shard: int) -> int:
        place = (os.getpid(), shard)
        if place not in self._descriptors:
            self._descriptors[place] = os.open(self._files.path(self._shards[shard]), os.O_RDONLY)
        return self._descriptors[place]
