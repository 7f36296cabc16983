"""One controller a run: a lease in the store with an epoch that only grows, checked by every write of run state.

Clocks of two machines are not compared: a lease of another machine's controller is watched for as long as a lease lasts
before it is taken, as a living one prolongs it in that time (the way of Kubernetes' own leader election).
"""

import json
import math
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from isc_jobs.spec.errors import DataError, TemporaryError
from isc_jobs.spec.stage import first_problem
from isc_jobs.store import Conflict, NotFound, ObjectInfo, Store

DURATION_S = 60.0
_SKEW_S = 1800.0  # clocks differ by less: S3 refuses requests of those that are off by 15 minutes
_LOOK_S = 2.0  # between looks at a lease that is watched


class _Held(BaseModel):
    """Who holds the run, and until when (Unix seconds)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str
    pid: Annotated[int, Field(gt=0, lt=1 << 31)]
    epoch: int
    expires: float


class LeaseHeld(TemporaryError):
    """Another controller holds the run."""


class LeaseLost(LeaseHeld):
    """Another controller has taken the run over: this one must not touch it any more."""


class Lease:
    """Held from ``acquire`` to ``release``; ``renew`` now and then."""

    def __init__(
        self, store: Store, run: str, now: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """The lease of a run; times are Unix seconds."""
        self.epoch = 0
        self._store, self._key, self._run, self._now = store, f"runs/{run}/lease.json", run, now
        self._sleep = sleep
        self._etag = ""
        self._renewed = 0.0

    def acquire(self) -> int:
        """Take it; the new epoch. Raises LeaseHeld if another controller lives."""
        try:
            data, etag = self._store.get(self._key)
        except NotFound:
            self.epoch = 1
            self._write(None)
            return self.epoch
        held = _read(self._store, self._key, data)
        if not _has_gone(held, self._now()) and (_lives_here(held, self._now()) or self._is_renewed(held, etag)):
            raise LeaseHeld(
                f"run {self._run!r} is held by another controller (process {held.pid} on {held.host}): "
                "wait for it, cancel it, or choose another --run"
            )
        self.epoch = held.epoch + 1
        self._write(etag)
        return self.epoch

    def _is_renewed(self, held: _Held, etag: str) -> bool:
        """Whether the lease is prolonged, or taken by another, while it is watched for as long as one lasts."""
        print(
            f"run {self._run!r} was held by process {held.pid} on {held.host}, and not given back: "
            f"watching for {DURATION_S:.0f} s whether that controller lives", flush=True,
        )  # fmt: skip
        for _ in range(math.ceil(DURATION_S / _LOOK_S)):
            self._sleep(_LOOK_S)
            found = self._store.stat(self._key)
            if found is None or found.etag != etag:
                return True
        return False

    def renew(self) -> None:
        """Prolong, once a third of its time is gone; raises LeaseLost if it was taken over."""
        if not 0 <= self._now() - self._renewed <= DURATION_S / 3:  # a clock may be set back
            self._write(self._etag)

    def release(self) -> None:
        """Give it back, keeping the epoch."""
        self._write(self._etag, expires=0.0)

    def _write(self, etag: str | None, expires: float | None = None) -> None:
        until = self._now() + DURATION_S if expires is None else expires
        content = _Held(host=_host(), pid=os.getpid(), epoch=self.epoch, expires=until).model_dump()
        condition = {"if_none_match": True} if etag is None else {}
        try:
            self._etag = self._store.put(self._key, json.dumps(content).encode(), if_match=etag, **condition)
        except Conflict as error:
            raise LeaseLost(f"run {self._run!r} was taken over by another controller: this one ends") from error
        self._renewed = self._now()


class FencedStore(Store):
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

    @override
    def stat(self, key: str) -> ObjectInfo | None:
        return self._store.stat(key)

    @override
    def get(self, key: str) -> tuple[bytes, str]:
        return self._store.get(key)

    @override
    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        self.hold()
        return self._store.put(key, data, if_none_match=if_none_match, if_match=if_match)

    @override
    def upload(self, key: str, path: Path) -> None:
        self.hold()
        self._store.upload(key, path)

    @override
    def download(self, key: str, path: Path) -> None:
        self._store.download(key, path)

    @override
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    @override
    def delete(self, key: str) -> None:
        self.hold()
        self._store.delete(key)

    @override
    def link(self, key: str, kind: str, seconds: int) -> str:
        return self._store.link(key, kind, seconds)


def is_held(store: Store, run: str, now: float) -> bool:
    """Whether a controller holds the run at ``now`` (Unix seconds), as far as one look at the lease tells."""
    key = f"runs/{run}/lease.json"
    try:
        held = _read(store, key, store.get(key)[0])
    except NotFound:
        return False
    return now < held.expires <= now + DURATION_S + _SKEW_S and not _is_dead(held)


def _read(store: Store, key: str, data: bytes) -> _Held:
    try:
        return _Held.model_validate_json(data)
    except ValidationError as error:
        raise DataError(
            f"{store.uri}: {key} is damaged ({first_problem(error)}): delete it if no controller of this run lives"
        ) from error


def _host() -> str:
    """This machine since it started: names alone are often shared."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()}/{boot.read_text('ascii').strip()[:8] if boot.exists() else uuid.getnode()}"


def _has_gone(held: _Held, now: float) -> bool:
    """Whether the holder has given the lease back, or died, beyond doubt."""
    doubt = 0.0 if held.host == _host() else _SKEW_S
    return held.expires + doubt <= now or _is_dead(held)


def _lives_here(held: _Held, now: float) -> bool:
    """Whether the holder is a living process of this machine, by whose clock the lease has not ended."""
    return held.host == _host() and now < held.expires <= now + DURATION_S


def _is_dead(held: _Held) -> bool:
    """Whether the holder was a process of this host that has gone."""
    if held.host != _host():
        return False
    try:
        os.kill(held.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return held.pid == os.getpid()
