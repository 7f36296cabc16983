"""Every error a user may meet, with its documented exit code (after sysexits.h)."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every program here; the controller decides on retries by them."""

    OK = 0
    USAGE = 64
    DATA = 65
    INTERNAL = 70
    TEMPORARY = 75
    INTERRUPTED = 130
    TERMINATED = 143


class IscJobsError(Exception):
    """Base of all expected errors: one sentence that says what was found, expected and to be done."""

    exit_code = ExitCode.INTERNAL


class UsageError(IscJobsError):
    """A wrong command line, setting, name or address; retrying cannot help."""

    exit_code = ExitCode.USAGE


class DataError(IscJobsError):
    """Wrong or damaged input data or artifacts; retrying cannot help."""

    exit_code = ExitCode.DATA


class TemporaryError(IscJobsError):
    """Something outside may recover (store down, disk full, run locked); retried with backoff."""

    exit_code = ExitCode.TEMPORARY


class Terminated(IscJobsError):
    """SIGTERM was handled: a checkpoint is written and the attempt may be repeated without charge."""

    exit_code = ExitCode.TERMINATED
