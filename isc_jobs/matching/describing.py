"""Starts the process that describes pictures, and hears what came of it.

It is one of its own because torch and faiss each bring an OpenMP runtime, and two in one process may hang or crash.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import IO, Any

from isc_jobs.spec.errors import DataError, ExitCode, IscJobsError, TemporaryError, UsageError

_ERRORS = {int(kind.exit_code): kind for kind in (UsageError, DataError, TemporaryError)}
_GRACE_S = 120.0  # for the batch in hand and a file


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be described, and how. Sets are described in their order."""

    weights: str
    weights_sha256: str
    arch: str | None  # None: the weights' own, as for the input size
    input_size: int | None
    work: str  # folder
    sets: dict[str, list[tuple[str, str]]]  # name: key and path of each picture
    edits: list[tuple[str, str, str, str]]  # of an edited copy: key, path, path of another to lay over it, seed (hex)
    batch: int | None  # None: by the device
    workers: int | None  # None: by the machine
    parent: int  # process; without it nobody waits for an answer
    quiet: bool = False  # say nothing of progress


@dataclass(frozen=True)
class Answer:
    """Where descriptors are, what made them, and what could not be read this time, with reasons."""

    folder: str
    model: dict[str, Any]
    unread: dict[str, str]  # by key


def describe(job: Job) -> Answer:
    """Describe what is not described yet. What is done before an interruption or error is kept.

    Raises the errors of the describing process as they are there, and UsageError where torch is not installed.
    """
    absent = [name for name in ("torch", "timm") if importlib.util.find_spec(name) is None]
    if absent:
        raise UsageError(
            f"{' and '.join(absent)} not installed: pip install -e '.[cpu]' in the checkout, [gpu] with a GPU"
        )
    with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as answer:
        question.write(json.dumps(asdict(job)).encode())
        question.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "isc_jobs.matching.describe", str(answer.fileno())],
            stdin=question, stdout=subprocess.DEVNULL if job.quiet else None,
            pass_fds=(answer.fileno(),), start_new_session=True,  # Ctrl-C is ours to pass on, once
        )  # fmt: skip
        try:
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        return _answer(code, answer)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Let it keep what it has."""
    process.terminate()
    try:
        process.wait(_GRACE_S)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _answer(code: int, file: IO[bytes]) -> Answer:
    file.seek(0)
    said = file.read()
    if code == ExitCode.OK:
        return Answer(**json.loads(said))
    reason = json.loads(said)["error"] if said else None
    if reason is not None:
        raise _ERRORS.get(code, IscJobsError)(reason)
    if code < 0:
        raise TemporaryError(
            f"the process that describes was ended by signal {-code} (9 is often lack of memory: a smaller --batch or "
            "fewer --workers need less); what is described is kept, run again"
        )
    raise IscJobsError(f"the process that describes ended with exit code {code}: its lines above say why")
