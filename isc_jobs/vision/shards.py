"""Tar shards (WebDataset-compatible) with an offset index, for random access without unpacking."""

import bisect
import csv
import json
import os
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO, Protocol

from isc_jobs.spec.errors import DataError


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


def write_shard(path: Path, pictures: Iterable[Picture]) -> list[IndexRow]:
    """Write a tar with fixed times and owners, and its index as .csv beside it."""
    rows = []
    with path.open("wb") as file:
        for picture in pictures:
            member = tarfile.TarInfo(f"{picture.id}.{picture.extension}")
            member.size = len(picture.data)
            file.write(member.tobuf(tarfile.USTAR_FORMAT))
            rows.append(IndexRow(picture.id, member.name, file.tell(), member.size, picture.width, picture.height))
            file.write(picture.data)
            _pad(file, tarfile.BLOCKSIZE)
        file.write(bytes(2 * tarfile.BLOCKSIZE))
        _pad(file, tarfile.RECORDSIZE)
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as index:
        writer = csv.DictWriter(index, [column.name for column in fields(IndexRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return rows


def _pad(file: BinaryIO, multiple: int) -> None:
    """Zeros up to a multiple of so many bytes."""
    file.write(bytes(-file.tell() % multiple))


def read_index(path: Path) -> list[IndexRow]:
    """Rows of a shard's index; raises DataError if it is no index."""
    with path.open(newline="", encoding="utf-8") as file:
        try:
            rows = list(csv.DictReader(file))
            sizes = [[int(row[name]) for name in ("offset", "size", "width", "height")] for row in rows]
            return [IndexRow(row["id"], row["member"], *size) for row, size in zip(rows, sizes, strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path.name} is no shard index: expected columns id, member, offset, size") from error


class ShardSet:
    """All pictures of one set, by position; positions follow ids, sorted."""

    def __init__(self, files: Files, name: str) -> None:
        """Read the indexes of set ``name``; a set that the data lack is empty."""
        manifest = json.loads(files.path("manifest.json").read_text("utf-8"))
        self._files = files
        self._shards: list[str] = manifest["sets"].get(name, {"shards": []})["shards"]
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
        data = os.pread(self._descriptor(bisect.bisect_right(self._ends, index)), row.size, row.offset)
        if len(data) != row.size:
            raise DataError(f"shard of {row.member} ends early: {len(data)} of {row.size} bytes")
        return data

    def _descriptor(self, shard: int) -> int:
        place = (os.getpid(), shard)
        if place not in self._descriptors:
            self._descriptors[place] = os.open(self._files.path(self._shards[shard]), os.O_RDONLY)
        return self._descriptors[place]
