"""One controller a run: a lease in the store with an epoch that only grows, checked by every write of run state."""

import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from isc_jobs.spec.errors import TemporaryError
from isc_jobs.store import Conflict, NotFound, ObjectInfo, Store

DURATION_S = 60.0


class LeaseLost(TemporaryError):
    """Another controller has taken the run over: this one must not touch it any more."""


class Lease:
    """Held from ``acquire`` to ``release``; ``renew`` now and then."""

    def __init__(self, store: Store, run: str, now: Callable[[], float] = time.time) -> None:
        """The lease of a run; times are Unix seconds."""
        self.epoch = 0
        self._store, self._key, self._run, self._now = store, f"runs/{run}/lease.json", run, now
        self._etag = ""
        self._renewed = 0.0

    def acquire(self) -> int:
        """Take it; the new epoch. Raises TemporaryError if another controller lives."""
        try:
            data, etag = self._store.get(self._key)
        except NotFound:
            self.epoch = 1
            self._write(None)
            return self.epoch
        held = json.loads(data)
        if held["expires"] > self._now() and not _is_dead(held):
            raise TemporaryError(
                f"run {self._run!r} is held by another controller (process {held['pid']} on {held['host']}): "
                "wait for it, cancel it, or choose another --run"
            )
        self.epoch = int(held["epoch"]) + 1
        self._write(etag)
        return self.epoch

    def renew(self) -> None:
        """Prolong, once a third of its time is gone; raises LeaseLost if it was taken over."""
        if self._now() - self._renewed > DURATION_S / 3:
            self._write(self._etag)

    def release(self) -> None:
        """Give it back, keeping the epoch."""
        self._write(self._etag, expires=0.0)

    def _write(self, etag: str | None, expires: float | None = None) -> None:
        content = {"host": _host(), "pid": os.getpid(), "epoch": self.epoch,
                   "expires": self._now() + DURATION_S if expires is None else expires}  # fmt: skip
        condition = {"if_none_match": True} if etag is None else {}
        try:
            self._etag = self._store.put(self._key, json.dumps(content).encode(), if_match=etag, **condition)
        except Conflict as error:
            raise LeaseLost(f"run {self._run!r} was taken over by another controller: this one ends") from error
        self._renewed = self._now()


class FencedStore:
    """A store whose writes are done only while the lease is held.

    A controller that was paused past its lease finds at its next write that another one has taken over.
    """

    def __init__(self, store: Store, lease: Lease) -> None:
        """Reads go to ``store`` as they are."""
        self.uri = store.uri
        self._store, self._lease = store, lease

    def hold(self) -> None:
        """Prolong the lease if need be; raises LeaseLost."""
        self._lease.renew()

    def stat(self, key: str) -> ObjectInfo | None:
        return self._store.stat(key)

    def get(self, key: str) -> tuple[bytes, str]:
        return self._store.get(key)

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        self.hold()
        return self._store.put(key, data, if_none_match=if_none_match, if_match=if_match)

    def upload(self, key: str, path: Path) -> None:
        self.hold()
        self._store.upload(key, path)

    def download(self, key: str, path: Path) -> None:
        self._store.download(key, path)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self.hold()
        self._store.delete(key)


def is_held(store: Store, run: str, now: float) -> bool:
    """Whether a controller holds the run at ``now`` (Unix seconds), as far as the lease tells."""
    try:
        held = json.loads(store.get(f"runs/{run}/lease.json")[0])
    except NotFound:
        return False
    return bool(held["expires"] > now) and not _is_dead(held)


def _host() -> str:
    """This machine since it started: names alone are often shared."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()}/{boot.read_text('ascii').strip()[:8] if boot.exists() else uuid.getnode()}"


def _is_dead(held: dict[str, object]) -> bool:
    """Whether the holder was a process of this host that has gone."""
    if held["host"] != _host():
        return False
    try:
        os.kill(int(str(held["pid"])), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return held["pid"] == os.getpid()
