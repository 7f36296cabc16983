"""The local launcher: stages as processes of this machine, torchrun for several processes of one training."""

import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from isc_jobs.controller.attempts import claim, keep_logs
from isc_jobs.controller.plan import Attempt
from isc_jobs.spec.stage import StageSpec
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
    attempt: Attempt | None = None  # once ended


class LocalLauncher:
    """Starts attempts, echoes their logs, and keeps them in the store."""

    def __init__(self, store: Store, run: str, echo: Callable[[str], None]) -> None:
        """Work under ``$ISC_JOBS_WORK``, by default ~/.cache/isc-jobs."""
        self._root = _root(store)
        self._store, self._run, self._echo = store, run, echo
        self._processes: list[_Process] = []

    def start(self, spec: StageSpec) -> None:
        """Start an attempt in a process group of its own, which ends with this process."""
        if any(process.spec == spec for process in self._processes):
            return
        claim(self._store, spec)
        work = _work(self._root, self._run, spec.stage, spec.attempt)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / "spec.json").write_text(spec.model_dump_json(indent=1), "utf-8")
        environment = os.environ | {"ISC_JOBS_CACHE": str(self._root / "cache"), "PYTHONUNBUFFERED": "1"}
        with (work / "log-0.txt").open("wb") as log:
            popen = subprocess.Popen(
                _command(spec, work), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, env=environment, preexec_fn=_end_with_parent,  # noqa: PLW1509 - prctl is safe after fork
            )  # fmt: skip
        self._processes.append(_Process(spec, work, popen))

    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts since the controller began; new log lines are echoed on the way."""
        return tuple(self._look(process) for process in self._processes)

    def stop(self, stage: str, number: int, reason: str) -> None:
        """End an attempt: SIGTERM, SIGKILL after the grace period."""
        for process in self._processes:
            if (process.spec.stage, process.spec.attempt) == (stage, number) and process.attempt is None:
                self._echo(f"{stage}  ending attempt {number}: {reason}")
                _signal(process.popen, signal.SIGTERM)
                try:
                    process.popen.wait(GRACE_S)
                except subprocess.TimeoutExpired:
                    _signal(process.popen, signal.SIGKILL)
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

    def _look(self, process: _Process) -> Attempt:
        if process.attempt is not None:
            return process.attempt
        code = process.popen.poll()
        self._echo_new(process)
        if code is None:
            return Attempt(stage=process.spec.stage, number=process.spec.attempt, key=process.spec.key, exit_code=None,
                           sign_of_life=process.sign_of_life)  # fmt: skip
        code, reason = _termination(process.work, code)
        _signal(process.popen, signal.SIGKILL)  # nothing of the group outlives its leader
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


def _termination(work: Path, code: int) -> tuple[int, str]:
    """Exit code and reason as the stage left them; of several ranks, the one that was not merely told to stop."""
    said = [json.loads(path.read_text("utf-8")) for path in sorted(work.glob("termination-*.json"))]
    failed = [entry for entry in said if entry["exit_code"]]
    if code == 0 or not failed:
        return code, ""
    first = min(failed, key=lambda entry: bool(entry["exit_code"] == 143))
    return int(first["exit_code"]), str(first["reason"])


def _end_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(popen: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    try:
        os.killpg(popen.pid, number)
    except (ProcessLookupError, PermissionError):
        return
