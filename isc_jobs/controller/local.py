"""The local launcher: stages as processes of this machine, torchrun for several processes of one training."""

import ctypes
import errno
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from isc_jobs.controller.attempts import claim, keep_logs
from isc_jobs.controller.plan import Attempt, describe_exit
from isc_jobs.spec.errors import ExitCode, TemporaryError, UsageError
from isc_jobs.spec.stage import LastWords, StageSpec
from isc_jobs.store import Store

GRACE_S = 30.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class _Process:
    spec: StageSpec
    work: Path
    popen: "subprocess.Popen[bytes]"
    echoed: int = 0
    sign_of_life: float = field(default_factory=time.monotonic)
    ending: str = ""  # why it is being ended by the controller,
    ending_code: int = 0  # and as which exit code that counts
    killed: bool = False  # by the controller, with SIGKILL
    attempt: Attempt | None = None  # once ended


class LocalLauncher:
    """Starts attempts, echoes their logs, and keeps them in the store."""

    def __init__(self, store: Store, run: str, echo: Callable[[str], None]) -> None:
        """Work under ``$ISC_JOBS_WORK``, by default ~/.cache/isc-jobs; end what a killed controller left there."""
        self._root = _root(store)
        self._store, self._run, self._echo = store, run, echo
        self._processes: list[_Process] = []
        with _explained(self._root):
            self._left = self._take_over()

    def start(self, spec: StageSpec) -> None:
        """Start an attempt in a process group of its own, which ends with this process."""
        if any(process.spec == spec for process in self._processes):
            return
        claim(self._store, spec)
        with _explained(self._root):
            self._begin(spec)

    def _begin(self, spec: StageSpec) -> None:
        work = _work(self._root, self._run, spec.stage, spec.attempt)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / "spec.json").write_text(spec.model_dump_json(indent=1), "utf-8")
        environment = os.environ | {"ISC_JOBS_CACHE": str(self._root / "cache"), "PYTHONUNBUFFERED": "1"}
        with (work / "log-0.txt").open("wb") as log, _only_one(work.parent) as lock:
            popen = subprocess.Popen(
                _command(spec, work), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, env=environment, pass_fds=[lock],
                preexec_fn=partial(_begin, lock, os.getpid()),  # noqa: PLW1509 - system calls alone, safe after fork
            )  # fmt: skip
        self._processes.append(_Process(spec, work, popen))

    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts since the controller began; new log lines are echoed on the way."""
        return (*self._left, *(self._look(process) for process in self._processes))

    def stop(self, stage: str, number: int, reason: str, exit_code: int = ExitCode.TERMINATED) -> None:
        """End an attempt: SIGTERM, SIGKILL after the grace period."""
        for process in self._processes:
            if (process.spec.stage, process.spec.attempt) == (stage, number) and process.attempt is None:
                self._echo(f"{stage}  ending attempt {number}: {reason}")
                process.ending, process.ending_code = reason, int(exit_code)
                _signal(process.popen.pid, signal.SIGTERM)
                try:
                    process.popen.wait(GRACE_S)
                except subprocess.TimeoutExpired:
                    process.ending, process.killed = f"{reason}; not ended after {GRACE_S:g} s, it was killed", True
                    _signal(process.popen.pid, signal.SIGKILL)
                    process.popen.wait()
                self._look(process)

    def stop_all(self, reason: str) -> None:
        """End everything that runs."""
        for process in self._processes:
            self.stop(process.spec.stage, process.spec.attempt, reason)

    def tidy(self) -> None:
        """Nothing is left to do: logs are kept as soon as an attempt ends."""

    def leave(self) -> None:
        """Processes end with their controller."""
        self.stop_all("the controller ends")

    def close(self) -> None:
        """Nothing is left."""
        self.stop_all("the run has ended")

    def _take_over(self) -> tuple[Attempt, ...]:
        """Attempts of a controller that was killed, once their processes have ended; their logs go to the store."""
        found = []
        for work in sorted((self._root / self._run).glob("*/attempt-*"), key=lambda path: int(path.name[8:])):
            with _only_one(work.parent):
                if (work / "log-0.txt").exists():  # else nothing was begun
                    spec = StageSpec.read(work / "spec.json")
                    code, reason = _termination(work, None)
                    attempt = Attempt(
                        stage=spec.stage, number=spec.attempt, key=spec.key, exit_code=code, reason=reason
                    )
                    keep_logs(self._store, spec, attempt, _logs(work))
                    found.append(attempt)
                shutil.rmtree(work)
        return tuple(found)

    def _look(self, process: _Process) -> Attempt:
        if process.attempt is not None:
            return process.attempt
        code = process.popen.poll()
        self._echo_new(process)
        if code is None:
            return Attempt(
                stage=process.spec.stage, number=process.spec.attempt, key=process.spec.key, exit_code=None,
                sign_of_life=process.sign_of_life, where=f"process {process.popen.pid} on {platform.node()}",
            )  # fmt: skip
        code, reason = _termination(process.work, code)
        if code != 0 and process.ending:
            last = "" if process.killed else f"; then {reason or describe_exit(code)}"
            code, reason = process.ending_code, process.ending + last
        _signal(process.popen.pid, signal.SIGKILL)  # nothing of the group outlives its leader
        process.attempt = Attempt(
            stage=process.spec.stage,
            number=process.spec.attempt,
            key=process.spec.key,
            exit_code=code,
            reason=reason,
            ended=time.monotonic(),
        )
        keep_logs(self._store, process.spec, process.attempt, _logs(process.work))
        shutil.rmtree(process.work, ignore_errors=True)
        return process.attempt

    def _echo_new(self, process: _Process) -> None:
        path = process.work / "log-0.txt"
        if path.stat().st_size == process.echoed:
            return
        with path.open("rb") as log:
            log.seek(process.echoed)
            data = log.read()
        whole = data[: data.rfind(b"\n") + 1]
        process.echoed += len(whole)
        if whole:
            process.sign_of_life = time.monotonic()
            for line in whole.decode("utf-8", "replace").splitlines():
                self._echo(line)


def live_log(store: Store, run: str, stage: str, number: int) -> dict[int, bytes]:
    """What the processes of an attempt have said so far, by rank; empty if it does not run on this machine."""
    try:
        return _logs(_work(_root(store), run, stage, number))
    except FileNotFoundError:
        return {}


def _root(store: Store) -> Path:
    base = Path(os.environ.get("ISC_JOBS_WORK", "~/.cache/isc-jobs")).expanduser()
    return base / hashlib.sha256(store.uri.encode()).hexdigest()[:12]


def _work(root: Path, run: str, stage: str, number: int) -> Path:
    return root / run / stage / f"attempt-{number}"


def _command(spec: StageSpec, work: Path) -> list[str]:
    program = ["-m", f"isc_jobs.stages.{spec.program}", "--spec", str(work / "spec.json"), "--work", str(work)]
    processes = int(spec.execution.get("compute", {}).get("processes", 1)) if spec.program == "train" else 1
    if processes == 1:
        return [sys.executable, *program]
    redirects = ",".join(f"{rank}:3" for rank in range(1, processes))
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
            "--log-dir", str(work / "ranks"), "--redirects", redirects, *program]  # fmt: skip


def _logs(work: Path) -> dict[int, bytes]:
    """By rank."""
    ranks = {int(path.parent.name): path.parent for path in work.glob("ranks/*/attempt_0/*/stdout.log")}
    logs = {rank: (f / "stdout.log").read_bytes() + (f / "stderr.log").read_bytes() for rank, f in ranks.items()}
    return logs | {0: (work / "log-0.txt").read_bytes()}


def _termination(work: Path, code: int | None) -> tuple[int, str]:
    """Exit code and reason as the stage left them; of several ranks, the first that was not merely told to stop.

    ``code``: of its leader, None if nobody saw it end.
    """
    read = (LastWords.read(path.read_bytes()) for path in sorted(work.glob("termination-*.json"), key=_written))
    said = [words for words in read if words is not None]
    failed = [words for words in said if words.exit_code]
    if code != 0 and failed:
        first = min(failed, key=lambda words: words.exit_code == ExitCode.TERMINATED)
        return first.exit_code, first.reason
    if code is None:
        return (0, "") if said else (int(ExitCode.TERMINATED), "it ended with its controller")
    return code, ""


@contextmanager
def _explained(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        found = f"work folder {root} cannot be written ({error.strerror or error})"
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}:
            raise UsageError(f"{found}: mend it, or name another in ISC_JOBS_WORK") from error
        raise TemporaryError(f"{found}: free space, or name another in ISC_JOBS_WORK, and run again") from error


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns


@contextmanager
def _only_one(stage: Path) -> Iterator[int]:
    """A lock on a stage's folder that an attempt's processes inherit, so that it is held as long as one of them lives.

    Those of an earlier attempt, whose controller was killed, get the grace period to end; raises TemporaryError if
    even SIGKILL does not end them.
    """
    lock = os.open(stage / "processes", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _end_earlier(lock, stage)
        os.ftruncate(lock, 0)  # the number of a group that has gone may soon be another's
        yield lock
    finally:
        os.close(lock)


def _end_earlier(lock: int, stage: Path) -> None:
    """Take the lock once those that hold it have ended: after SIGTERM, or after the grace period SIGKILL."""
    leader = 0
    for number in (signal.SIGTERM, signal.SIGKILL):
        if _take(lock):
            return
        leader = int(os.pread(lock, 20, 0) or 0)
        if leader:
            _signal(leader, number)
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until:
            if _take(lock):
                return
            time.sleep(0.05)
    raise TemporaryError(f"{stage.name}: processes of an earlier attempt (group {leader}) do not end: end them")


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _begin(lock: int, parent: int) -> None:
    """In the new process: say whose the lock is; end with the controller."""
    os.pwrite(lock, b"%-20d" % os.getpid(), 0)
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before
            os.kill(os.getpid(), signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return
