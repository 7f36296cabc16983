"""One controller a run: a lease in the store, with an epoch that only grows."""

import json
import os
import platform
import time
from collections.abc import Callable

from isc_jobs.spec.errors import TemporaryError
from isc_jobs.store import Conflict, NotFound, Store

DURATION_S = 60.0


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
        """Prolong, once a third of its time is gone; raises TemporaryError if it was taken over."""
        if self._now() - self._renewed > DURATION_S / 3:
            self._write(self._etag)

    def release(self) -> None:
        """Give it back, keeping the epoch."""
        self._write(self._etag, expires=0.0)

    def _write(self, etag: str | None, expires: float | None = None) -> None:
        content = {"host": platform.node(), "pid": os.getpid(), "epoch": self.epoch,
                   "expires": self._now() + DURATION_S if expires is None else expires}  # fmt: skip
        condition = {"if_none_match": True} if etag is None else {}
        try:
            self._etag = self._store.put(self._key, json.dumps(content).encode(), if_match=etag, **condition)
        except Conflict as error:
            raise TemporaryError(f"run {self._run!r} was taken over by another controller: this one ends") from error
        self._renewed = self._now()


def _is_dead(held: dict[str, object]) -> bool:
    """Whether the holder was a process of this host that has gone."""
    if held["host"] != platform.node():
        return False
    try:
        os.kill(int(str(held["pid"])), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return held["pid"] == os.getpid()
