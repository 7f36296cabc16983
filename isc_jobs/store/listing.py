"""A source's listing, made once a run: kept as ``listings/<digest>.tsv.gz``, which download reads."""

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.store.port import NotFound, ObjectInfo, Store
from isc_jobs.store.source import FOLDERS, Source

_LONGEST_LINE = 1 << 16  # a key of S3 has 1024 bytes, each three characters at most


def source_digest(source: Source, path: Path) -> str:
    """Write the source's listing to ``path``; its digest. Raises UsageError without the expected folders."""
    folders: set[str] = set()
    digest = write_listing(_noting_folders(source.list(), folders), path)
    if not {"train", "reference"} & folders:
        found = "holds no folder train_images/ or reference_images/" if folders else "is empty"
        raise UsageError(f"source {source.uri} {found}: make such a data set with `isc-jobs dataset make`")
    return digest


def write_listing(infos: Iterable[ObjectInfo], path: Path) -> str:
    """Write key (percent-encoded), size and entity tag, a line each, gzipped; SHA-256 (hex) of the lines."""
    digest = hashlib.sha256()
    # Entity tags hardly shrink, so the fastest level does.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as file:
        for info in infos:
            line = f"{quote(info.key, errors='surrogateescape')}\t{info.size}\t{_one_word(info.etag)}\n".encode()
            digest.update(line)
            file.write(line)
    return digest.hexdigest()


def read_listing(path: Path) -> Iterator[ObjectInfo]:
    """The objects of a written listing, in its order; raises DataError for what is none."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            while line := file.readline(_LONGEST_LINE):
                key, size, etag = line.rstrip("\n").split("\t")
                yield ObjectInfo(unquote(key, errors="surrogateescape"), int(size), etag)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is no listing of a source: {error}; start the run again with run-all") from error


def keep_listing(store: Store, digest: str, path: Path) -> None:
    """Bring a written listing into the store, if it is not there."""
    if store.stat(_key(digest)) is None:
        store.upload(_key(digest), path)


def fetch_listing(store: Store, digest: str, path: Path) -> bool:
    """Copy the kept listing to ``path``; whether it is there and has this digest."""
    try:
        store.download(_key(digest), path)
        with gzip.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except (NotFound, EOFError, gzip.BadGzipFile, zlib.error):
        return False


def _one_word(etag: str) -> str:
    """An entity tag as a server gave it, without what would end its field or line."""
    return etag if etag.isprintable() and etag.isascii() else quote(etag, safe='"', errors="surrogateescape")


def _key(digest: str) -> str:
    return f"listings/{digest}.tsv.gz"


def _noting_folders(infos: Iterable[ObjectInfo], folders: set[str]) -> Iterator[ObjectInfo]:
    """Notes the sets that the folders hold, and an empty name if there is anything else."""
    for info in infos:
        folders.add(FOLDERS.get(info.key.partition("/")[0], "") if "/" in info.key else "")
        yield info
