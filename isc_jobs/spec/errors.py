"""Every error a user may meet, with its documented exit code (after sysexits.h)."""

import errno
import os
from enum import IntEnum

from isc_jobs.spec.plain import plain_lines

_LONGEST = 2_000  # characters


class ExitCode(IntEnum):
    """Exit codes of every program here; the controller decides on retries by them."""

    OK = 0
    USAGE = 64
    DATA = 65
    INTERNAL = 70
    TEMPORARY = 75
    SILENT = 124  # of an attempt: ended because it said nothing any more
    INTERRUPTED = 130
    TERMINATED = 143


class IscJobsError(Exception):
    """Base of all expected errors: one sentence that says what was found, expected and to be done.

    What was found may come from anyone: control characters, which a terminal would obey, are shown as escapes, and
    what is longer than a page is cut.
    """

    exit_code = ExitCode.INTERNAL

    def __str__(self) -> str:
        """The sentence."""
        shown = plain_lines(super().__str__()[: _LONGEST + 1])
        return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


class UsageError(IscJobsError):
    """A wrong command line, setting, name or address; retrying cannot help."""

    exit_code = ExitCode.USAGE


class DataError(IscJobsError):
    """Wrong or damaged input data or artifacts; retrying cannot help."""

    exit_code = ExitCode.DATA


class TemporaryError(IscJobsError):
    """Something outside may recover (store down, disk full, run locked); retried with backoff."""

    exit_code = ExitCode.TEMPORARY


def of_file(error: OSError) -> IscJobsError | None:
    """What the system says of a file or folder, as an error of ours; None if it names none."""
    if not isinstance(error.filename, str | bytes | os.PathLike):  # none, or the number of an open file
        return None
    said = f"{os.fsdecode(error.filename)}: {error.strerror}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return TemporaryError(f"{said}: free space, and run again")
    return UsageError(f"{said}: mend that, or name another")


class Terminated(IscJobsError):
    """SIGTERM was handled: a checkpoint is written and the attempt may be repeated without charge."""

    exit_code = ExitCode.TERMINATED


class Stopped(BaseException):
    """A signal asks this process to end. No Exception: libraries catch and retry those."""

    def __init__(self, signum: int) -> None:
        """``signum``: the signal."""
        super().__init__(signum)
        self.signum = signum
