"""Ctrl-C and SIGTERM of a controller."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from isc_jobs.spec.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_as_before() -> Iterator[None]:
    """Whatever handles them within, in the end it is what handled them before."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def handle(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> None:
    """Let it handle both."""
    for number in _SIGNALS:
        signal.signal(number, handler)


def raise_stopped(signum: int, _: FrameType | None) -> None:
    """A handler that raises Stopped."""
    raise Stopped(signum)
