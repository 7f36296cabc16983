"""What every parser of outside data promises: it returns, or raises a documented error that names the input.

It takes little memory and time, writes nothing outside its folder, and starts nothing.
"""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isc_jobs.spec.errors import DataError, IscJobsError, UsageError

_LONGEST = 2_100  # characters of a sentence
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.kill",
           "socket.connect", "socket.getaddrinfo", "socket.bind", "ctypes.dlopen", "webbrowser.open")  # fmt: skip
_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate",
            "shutil.rmtree", "shutil.move")  # fmt: skip
_HARMLESS = ("/dev/", "/proc/")


class Broken(AssertionError):
    """A promise was broken."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A parser: ``run`` gives it bytes within a folder of its own."""

    name: str
    run: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]  # small valid inputs
    mutate: Callable[[bytes, Any], bytes] | None = None  # knows the format; by a random.Random
    errors: tuple[type[IscJobsError], ...] = (UsageError, DataError)
    names: str | None = None  # what an error must name; None: its caller does
    megabytes: int = 200
    seconds: float = 5.0


@dataclass
class _Watch:
    """What the process does while a target runs."""

    folder: str = ""
    seen: list[str] = field(default_factory=list)


_WATCH: list[_Watch] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _WATCH:
        return
    watch = _WATCH[-1]
    if event in _STARTS and (event != "os.kill" or arguments[1] != 0):  # 0 only asks whether a process lives
        _break(watch, f"starts something: {event} {arguments!r}"[:300])
    if event == "open" and _writes(arguments):
        _within(watch, event, arguments[0])
    elif event in _CHANGES:
        _within(watch, event, arguments[0])
        if event in {"os.rename", "os.link", "shutil.move"}:
            _within(watch, event, arguments[1])


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _within(watch: _Watch, event: str, path: Any) -> None:
    if isinstance(path, int):
        return
    place = os.path.realpath(os.fsdecode(path))
    if place != watch.folder and not place.startswith((watch.folder + "/", *_HARMLESS)):
        _break(watch, f"writes outside its folder: {event} {place}")


def _break(watch: _Watch, what: str) -> None:
    watch.seen.append(what)
    raise Broken(what)


sys.addaudithook(_audit)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Raises Broken for what is started, or written outside the folder, even if that was caught within."""
    watch = _Watch(str(folder.resolve()))
    _WATCH.append(watch)
    try:
        yield
    finally:
        _WATCH.pop()
    if watch.seen:
        raise Broken(watch.seen[0])


def hold(target: Target, data: bytes, folder: Path, *, timed: bool = False) -> IscJobsError | None:
    """Run a target in a new folder, and see what it promises; the documented error, None if it returned.

    ``timed``: its time too, which only means something on a machine that does little else.
    """
    folder.mkdir()
    resident = _forget_peak()
    started = time.process_time()
    try:
        with watched(folder):
            target.run(data, folder)
        error = None
    except target.errors as raised:
        error = raised
    seconds, megabytes = time.process_time() - started, (_peak() - resident) >> 20
    if timed and seconds > target.seconds:
        raise Broken(f"took {seconds:.1f} s, {target.seconds:.0f} are allowed")
    if megabytes > target.megabytes:
        raise Broken(f"took {megabytes} MB of memory, {target.megabytes} are allowed")
    if error is not None:
        _check_sentence(target, str(error))
    return error


def _check_sentence(target: Target, sentence: str) -> None:
    if target.names is not None and target.names not in sentence:
        raise Broken(f"does not name {target.names}: {sentence!r}"[:500])
    if len(sentence) > _LONGEST:
        raise Broken(f"says {len(sentence)} characters: {sentence[:200]!r}")
    if any((ord(letter) < 32 and letter not in "\n\t") or ord(letter) == 127 for letter in sentence):
        raise Broken(f"says control characters: {sentence!r}"[:500])


def _forget_peak() -> int:
    """Let the peak of resident memory begin here; bytes resident now."""
    gc.collect(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - often called
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) << 10
    raise AssertionError(f"/proc/self/status has no {name}")
