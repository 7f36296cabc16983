"""The store in a folder of this machine."""

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override

from isc_jobs.spec.errors import IscJobsError, TemporaryError, UsageError
from isc_jobs.store.port import Conflict, NotFound, ObjectInfo, Store, check_key, check_prefix

_CONTROL = ".control"  # lock and unfinished writes; never listed


class DirectoryStore(Store):
    """Objects are files. Writers take one lock; a file appears by rename, so readers need none."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, made by the first write; raises UsageError if it is a file."""
        self.root = root.expanduser().resolve()
        self.uri = str(self.root)
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"store {self.uri} is a file: give a folder")

    def path(self, key: str) -> Path:
        """Where the object's file is."""
        return self.root / check_key(key)

    @override
    def stat(self, key: str) -> ObjectInfo | None:
        try:
            status = self.path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return ObjectInfo(key, status.st_size, _etag(status))

    @override
    def get(self, key: str) -> tuple[bytes, str]:
        try:
            with self.path(key).open("rb") as file:
                return file.read(), _etag(os.fstat(file.fileno()))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound(f"{self.uri}: no object {key}") from error

    @override
    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        with self._temporary() as temporary:
            with temporary.open("wb") as file:
                file.write(data)
                _sync(file.fileno())
            with self._locked():
                self._check(key, if_none_match=if_none_match, if_match=if_match)
                return self._appear(temporary, key)

    @override
    def upload(self, key: str, path: Path) -> None:
        with self._temporary() as temporary:
            shutil.copyfile(path, temporary)
            with temporary.open("rb+") as file:
                _sync(file.fileno())
            self._appear(temporary, key)

    @override
    def download(self, key: str, path: Path) -> None:
        source = self.path(key)
        if not source.is_file():
            raise NotFound(f"{self.uri}: no object {key}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
        with _explained(str(path)):
            shutil.copyfile(source, partial)
            partial.replace(path)

    @override
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = self.root / check_prefix(prefix).rpartition("/")[0]
        names = (path.relative_to(self.root).as_posix() for path in folder.rglob("*") if path.is_file())
        for key in sorted(name for name in names if name.startswith(prefix) and not name.startswith(_CONTROL)):
            info = self.stat(key)
            if info is not None:
                yield info

    @override
    def delete(self, key: str) -> None:
        path = self.path(key)
        with _explained(self.uri):
            path.unlink(missing_ok=True)
            for parent in path.relative_to(self.root).parents[:-1]:
                try:
                    (self.root / parent).rmdir()
                except OSError:  # not empty: done
                    break

    @override
    def link(self, key: str, kind: str, seconds: int) -> str:
        return self.path(key).as_uri()

    def _check(self, key: str, *, if_none_match: bool, if_match: str | None) -> None:
        if not if_none_match and if_match is None:
            return
        found = self.stat(key)
        if if_none_match and found is not None:
            raise Conflict(f"{self.uri}: {key} exists already")
        if if_match is not None and (found is None or found.etag != if_match):
            raise Conflict(f"{self.uri}: {key} was changed by another writer")

    def _appear(self, temporary: Path, key: str) -> str:
        target = self.path(key)
        for _ in range(3):  # a concurrent delete may remove the folder in between
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.replace(target)
            except FileNotFoundError:
                continue
            return _etag(target.stat())
        raise TemporaryError(f"{self.uri}: cannot write {key}: its folder keeps disappearing; try again")

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        with _explained(self.uri):
            (self.root / _CONTROL).mkdir(parents=True, exist_ok=True)
            path = self.root / _CONTROL / uuid.uuid4().hex
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.root / _CONTROL / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _etag(status: os.stat_result) -> str:
    # Every write makes a new file, so inode and times tell objects apart.
    return hashlib.sha256(f"{status.st_ino} {status.st_mtime_ns} {status.st_size}".encode()).hexdigest()[:32]


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except IscJobsError:
        raise
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}:
            raise UsageError(f"store {uri} cannot be written ({error.strerror}): give another or mend it") from error
        raise TemporaryError(f"store {uri}: {error.strerror or error}: free space or mend it, run again") from error
