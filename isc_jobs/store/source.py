"""Where the pictures come from: a folder or an S3 prefix, signed or anonymous; only read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from isc_jobs.spec.address import check_address
from isc_jobs.spec.errors import TemporaryError, UsageError
from isc_jobs.store.port import NotFound, ObjectInfo

# The challenge's layout: folder of the source, and the set it holds.
FOLDERS = {
    "train_images": "train", "training_images": "train", "reference_images": "reference",
    "query_images": "query_phase1", "query_images_phase2": "query_phase2",
}  # fmt: skip


class Source(Protocol):
    """Objects by a key relative to the source."""

    uri: str

    def list(self) -> Iterator[ObjectInfo]:
        """All objects, sorted by key."""

    def read(self, key: str) -> bytes:
        """An object's bytes; raises NotFound or TemporaryError."""


def open_source(uri: str, *, anonymous: bool = False) -> Source:
    """The source; raises UsageError if a folder is missing or the scheme unknown."""
    if check_address("source", uri).startswith("s3://"):
        return _S3Source(uri, anonymous=anonymous)
    return _FolderSource(Path(uri))


def check_folder(path: Path, remedy: str, what: str = "") -> None:
    """Raises UsageError for a path that is no folder, or one that cannot be looked into."""
    try:
        os.scandir(path).close()
    except FileNotFoundError as error:
        raise UsageError(f"{what}{path} is not there: {remedy}") from error
    except NotADirectoryError as error:
        raise UsageError(f"{what}{path} is not a folder: {remedy}") from error
    except OSError as error:
        raise UsageError(f"{what}{path} cannot be read ({error.strerror}): mend its rights") from error


class _FolderSource:
    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().resolve()
        self.uri = str(self._root)
        check_folder(root.expanduser(), "give one that holds train_images/ and reference_images/", "source ")

    def list(self) -> Iterator[ObjectInfo]:
        files = sorted(path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file())
        for key in files:
            status = (self._root / key).stat()
            yield ObjectInfo(key, status.st_size, str(status.st_mtime_ns))

    def read(self, key: str) -> bytes:
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"source {self.uri}: {key} has gone since it was listed") from error
        except OSError as error:
            raise TemporaryError(f"source {self.uri}: cannot read {key}: {error.strerror}") from error


class _S3Source:
    def __init__(self, uri: str, *, anonymous: bool) -> None:
        from isc_jobs.store.s3 import s3_client, split_uri
        from isc_jobs.store.s3_reads import ObjectReader

        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = split_uri(uri)
        self._client: Any = s3_client(anonymous=anonymous)
        self._reader = ObjectReader(self._client, self._bucket, anonymous=anonymous)

    def list(self) -> Iterator[ObjectInfo]:
        from isc_jobs.store.s3 import list_bucket

        for info in list_bucket(self._client, self.uri, self._bucket, self._prefix):
            yield ObjectInfo(info.key.removeprefix(self._prefix), info.size, info.etag)

    def read(self, key: str) -> bytes:
        from isc_jobs.store.s3 import explained

        with explained(self.uri, key):
            return self._reader.read(self._prefix + key)
