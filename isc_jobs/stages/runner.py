"""What every stage program does around its body: read the specification, run, commit, exit by the table."""

import argparse
import ctypes
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from multiprocessing import parent_process
from pathlib import Path
from types import FrameType
from typing import Any

import isc_jobs
from isc_jobs.spec.errors import ExitCode, IscJobsError, Stopped, UsageError
from isc_jobs.spec.plain import plain, plain_lines
from isc_jobs.spec.stage import InputRef, LastWords, StageSpec
from isc_jobs.store import Store, open_store
from isc_jobs.store.artifacts import Artifact, FileEntry, open_artifact, publish, read_commit, uncommit, verify_commit
from isc_jobs.store.progress import Progress

_PR_SET_PDEATHSIG = 1
_SAID = 200  # characters of a line that status shows
_FULL_BYTES = 1 << 16  # what fails with less room fails for want of it
_SHOWN = ("torch", "timm", "faiss-cpu", "faiss-gpu", "numpy", "pillow", "opencv-python-headless")


@dataclass
class Context:
    """What a stage's body works with."""

    spec: StageSpec
    store: Store
    work: Path  # scratch of this attempt
    rank: int = 0
    part: int = 0  # of an attempt that several pods share,
    parts: int = 1  # each with a part of the work
    uploaded: list[FileEntry] = field(default_factory=list)  # outputs that are in their place in the store already
    progress: Callable[..., None] = field(init=False)
    _stop: list[int] = field(default_factory=list)
    _notes_stops: bool = False
    _said: str = ""  # the last line of the log

    def __post_init__(self) -> None:
        """Make the folders; only rank 0 reports progress, and each part its own."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.progress = self.counter(self.spec.stage) if self.is_main else lambda *_, **__: None

    @property
    def ref(self) -> InputRef:
        """How the store names this stage's output."""
        return InputRef(stage=self.spec.stage, key=self.spec.key)

    @property
    def out(self) -> Path:
        """Outputs go here and are published at the end."""
        return self.work / "out"

    @property
    def cache(self) -> Path:
        """Verified local copies of inputs, shared by the attempts and ranks of this machine."""
        return Path(os.environ.get("ISC_JOBS_CACHE", str(self.work / "cache")))

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes and reports."""
        return self.rank == 0

    @property
    def stop_requested(self) -> bool:
        """Whether SIGTERM came: save what is worth saving and raise Terminated."""
        return bool(self._stop)

    def note_stops(self) -> None:
        """From here on SIGTERM does not end the attempt where it stands: the body looks at ``stop_requested``."""
        self._notes_stops = True

    def counter(self, name: str) -> Progress:
        """Progress of work under this name: in the log, and if this is rank 0, in the store."""
        file = "progress.json" if self.parts == 1 else f"progress-{self.part}.json"
        key = f"{self.spec.prefix}/{file}"

        def write(data: bytes) -> None:
            if self.is_main:
                self.store.put(key, data)

        return Progress(name, write, line=lambda: self._said)

    def input(self, name: str) -> Artifact:
        """A committed input by its name in the specification; the attempt's processes here fetch each file once.

        Raises UsageError for an input that is not specified, DataError for one that is not there.
        """
        if name not in self.spec.inputs:
            raise UsageError(f"stage specification: inputs.{name} is missing")
        return open_artifact(self.store, self.spec.inputs[name], self.cache, self.work / "verified")

    def log(self, line: str, *, every_rank: bool = False) -> None:
        """A line of the log, from rank 0 alone if not said otherwise."""
        if self.is_main or every_rank:
            self._said = plain(line)[:_SAID]
            print(f"{self.spec.stage}  {plain(line)}", flush=True)

    def request_stop(self, signum: int, _frame: FrameType | None) -> None:
        """The SIGTERM handler; raises Stopped if the body does not look for itself."""
        self._stop.append(signum)
        if not self._notes_stops and parent_process() is None:  # loaders end with the stage
            raise Stopped(signum)


# Writes files under ``context.out`` and returns a small summary, which are published; None if there is nothing to
# publish: from ranks other than 0, and from parts that others outlast.
Body = Callable[[Context], dict[str, Any] | None]


def run_stage(program: str, body: Body) -> int:
    """Run a stage's body by the command line's specification; the exit code is the process's."""
    arguments = _parse(program)
    _end_with_parent()
    code, reason = _guarded(program, body, arguments.spec, arguments.work)
    with suppress(OSError):  # of a full disk: the exit code tells what it can
        if reason:
            print(f"{program}: {reason}", file=sys.stderr, flush=True)
        if arguments.work is not None:
            _say_why(arguments.work / f"termination-{os.environ.get('RANK', '0')}.json", code, reason)
    if code and "ISC_JOBS_TERMINATION_LOG" in os.environ:
        _say_why_once(Path(os.environ["ISC_JOBS_TERMINATION_LOG"]), code, reason)
    return code


def _end_with_parent() -> None:
    """Torchrun begins its processes in sessions of their own: if it is killed, nothing else would end them."""
    if "LOCAL_RANK" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _guarded(program: str, body: Body, spec: Path, work: Path | None) -> tuple[int, str]:
    """Exit code and reason by the table; a traceback goes to the log only for what nobody expected."""
    try:
        return _run(program, body, spec, work), ""
    except IscJobsError as error:
        return int(error.exit_code), plain(str(error))
    except Stopped:
        return int(ExitCode.TERMINATED), "stopped by SIGTERM: what is finished is kept, run it again to go on"
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED), "interrupted"
    except Exception as error:  # noqa: BLE001 - the process's edge: every failure gets its exit code
        _print_traceback()
        said = f"{type(error).__name__}: {error}"
        if work is not None and _is_full(work):  # SQLite, HDF5 and NumPy have errors of their own for that
            return int(ExitCode.TEMPORARY), plain(f"the disk of the work folder {work} is full: free space ({said})")
        if isinstance(error, OSError):
            return int(ExitCode.TEMPORARY), plain(said)
        return int(ExitCode.INTERNAL), plain(f"internal error, see the log: {said}")


def _is_full(work: Path) -> bool:
    try:
        return shutil.disk_usage(work).free < _FULL_BYTES
    except OSError:
        return False


def _print_traceback() -> None:
    print(plain_lines(traceback.format_exc()), file=sys.stderr, end="", flush=True)


def _say_why(path: Path, code: int, reason: str) -> None:
    """Leave the exit code and reason for the launcher; torchrun hides its children's codes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(LastWords(exit_code=code, reason=reason).model_dump_json(), "utf-8")


def _say_why_once(path: Path, code: int, reason: str) -> None:
    """Leave it unless another process of the pod has left its own: those that are stopped by it come later."""
    if not path.exists() or not path.stat().st_size:
        _say_why(path, code, reason)


def _run(program: str, body: Body, spec_file: Path, work: Path | None) -> int:
    spec = StageSpec.read(spec_file)
    store = open_store(spec.store)
    ref = InputRef(stage=spec.stage, key=spec.key)
    commit = read_commit(store, ref)
    if commit is not None and verify_commit(store, commit):
        print(f"{spec.stage}  finished before, nothing to do", flush=True)
        return int(ExitCode.OK)
    if commit is not None:
        print(f"{spec.stage}  files of the finished output are lost, it is made again", flush=True)
        uncommit(store, ref)
    scratch = work or Path(tempfile.mkdtemp(prefix=f"isc-jobs-{program}-"))
    part, parts = _part()
    context = Context(spec, store, scratch, int(os.environ.get("RANK", "0")), part, parts)
    signal.signal(signal.SIGTERM, context.request_stop)
    try:
        _run_body(context, body)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends anyway
    return int(ExitCode.OK)


def _run_body(ctx: Context, body: Body) -> None:
    """Run it, publish what it made."""
    started = time.monotonic()
    summary = body(ctx)
    if summary is None:
        return
    publish(
        ctx.store, ctx.ref, ctx.out, run=ctx.spec.run, attempt=ctx.spec.attempt, summary=summary, provenance=versions(),
        seconds=time.monotonic() - started, uploaded=ctx.uploaded,
    )  # fmt: skip
    ctx.log(f"committed after {time.monotonic() - started:.1f} s")
    shutil.rmtree(ctx.out, ignore_errors=True)


def _part() -> tuple[int, int]:
    """Which of how many parts this process is, as an Indexed Job tells its pods; raises UsageError."""
    part, parts = os.environ.get("JOB_COMPLETION_INDEX", "0"), os.environ.get("ISC_JOBS_PARTS", "1")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise UsageError(f"JOB_COMPLETION_INDEX {part!r}, ISC_JOBS_PARTS {parts!r}: expected a part from 0 below parts")
    return int(part), int(parts)


def versions() -> dict[str, str]:
    """Versions of what decides results, and the container image, for commit.json."""
    found = {"isc-jobs": isc_jobs.__version__, "python": platform.python_version()}
    if "ISC_JOBS_IMAGE" in os.environ:
        found["image"] = os.environ["ISC_JOBS_IMAGE"]
    for name in _SHOWN:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _parse(program: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m isc_jobs.stages.{program}", exit_on_error=True)
    parser.add_argument("--spec", type=Path, required=True, help="stage specification (JSON)")
    parser.add_argument("--work", type=Path, help="scratch folder; default: a new temporary one")
    return parser.parse_args()
