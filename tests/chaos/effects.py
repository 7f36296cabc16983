"""The command line, sent a signal right after its n-th effect: a write of the store, a process or object begun or
ended.

``python effects.py SIGNAL N LOG COMMAND ...``; with N 0 it is only counted. LOG gets a line an effect.
"""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isc_jobs.store.directory import DirectoryStore


class Effects:
    """Counts calls, and sends a signal after the last one wanted."""

    def __init__(self, last: int, log: Path, send: Callable[[], None]) -> None:
        self._last, self._log, self._send, self._count = last, log, send, 0

    def watch(self, owner: Any, name: str, wanted: Callable[..., bool] = lambda *_, **__: True) -> None:
        """Every call of the function ``owner.name`` that is wanted is an effect once it has returned."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def counted(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            if wanted(*arguments, **options):
                self._done(f"{name} {' '.join(str(argument)[:80] for argument in arguments[1:2])}")
            return result

        setattr(owner, name, counted)

    def _done(self, what: str) -> None:
        self._count += 1
        with self._log.open("a") as log:
            log.write(f"{what}\n")
        if self._count == self._last:
            self._send()


def to_itself(name: str) -> Callable[[], None]:
    """Sends this process a signal."""
    return lambda: os.kill(os.getpid(), signal.Signals[name])


def watch_store(effects: Effects, kind: type) -> None:
    """All writes of stores of a kind."""
    for name in ("put", "upload", "delete"):
        effects.watch(kind, name)


def watch_processes(effects: Effects) -> None:
    """What the local launcher begins and ends."""
    from isc_jobs.controller import local

    effects.watch(subprocess.Popen, "__init__", lambda *_, **options: "pass_fds" in options)
    effects.watch(local, "_signal")


def watch_objects(effects: Effects) -> None:
    """What the cluster's launcher creates and deletes."""
    from isc_jobs.controller.kubernetes.api import Api

    effects.watch(Api, "create", lambda *_, **options: not options.get("dry_run"))
    effects.watch(Api, "delete")


def main() -> int:
    from isc_jobs import cli

    effects = Effects(int(sys.argv[2]), Path(sys.argv[3]), to_itself(sys.argv[1]))
    if "kubernetes" in sys.argv:
        from isc_jobs.store.s3 import S3Store

        watch_store(effects, S3Store)
        watch_objects(effects)
    else:
        watch_store(effects, DirectoryStore)
        watch_processes(effects)
    return cli.main(sys.argv[4:])


if __name__ == "__main__":
    sys.exit(main())
