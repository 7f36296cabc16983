"""The launcher of this machine, where a controller before it was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stores import held

from isc_jobs.controller import local
from isc_jobs.controller.lease import FencedStore
from isc_jobs.controller.local import LocalLauncher
from isc_jobs.spec.errors import TemporaryError
from isc_jobs.spec.pipeline import build_pipeline, find_stage
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import StageSpec

__all__ = ["held"]

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


def spec(store: FencedStore, attempt: int = 1) -> StageSpec:
    stage = find_stage(build_pipeline(load_settings("demo"), "/absent", "0" * 64), "download")
    return stage.spec("mine", attempt, store.uri)


def wait_for(path: Path, text: bytes) -> None:
    deadline = time.monotonic() + 60
    while text not in path.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_killed_controller_left_is_waited_for_ended_and_kept(
    held: FencedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_command", lambda *_: [sys.executable, "-c", STUBBORN])
    monkeypatch.setattr(local, "GRACE_S", 1.0)
    first = LocalLauncher(held, "mine", print)
    first.start(spec(held))
    (work,) = (tmp_path / "work").glob("*/mine/download/attempt-1")
    wait_for(work / "log-0.txt", b"up")
    second = LocalLauncher(held, "mine", print)  # its controller has taken the run over
    (attempt,) = second.attempts()
    assert (attempt.stage, attempt.number, attempt.exit_code) == ("download", 1, 143)
    assert attempt.reason == "it ended with its controller"
    assert first._processes[0].popen.wait(5) == -signal.SIGKILL  # SIGTERM did not do
    assert not work.exists()
    kept = json.loads(held.get("runs/mine/download/attempt-1/termination.json")[0])
    assert kept == {"exit_code": 143, "reason": attempt.reason, "pod": "", "evidence": ""}
    second.start(spec(held, attempt=2))
    assert [attempt.number for attempt in second.attempts()] == [1, 2]
    second.stop_all("the test ends")


def test_what_the_controller_killed_is_not_put_down_to_memory(
    held: FencedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_command", lambda *_: [sys.executable, "-c", STUBBORN])
    monkeypatch.setattr(local, "GRACE_S", 1.0)
    launcher = LocalLauncher(held, "mine", print)
    launcher.start(spec(held))
    (work,) = (tmp_path / "work").glob("*/mine/download/attempt-1")
    wait_for(work / "log-0.txt", b"up")
    launcher.stop("download", 1, "the controller was interrupted")
    (attempt,) = launcher.attempts()
    assert attempt.exit_code == 143
    assert attempt.reason == "the controller was interrupted; not ended after 1 s, it was killed"


def test_an_attempt_that_had_ended_keeps_its_own_exit_code(held: FencedStore, tmp_path: Path) -> None:
    first = LocalLauncher(held, "mine", print)
    first.start(spec(held))
    first._processes[0].popen.wait(60)  # of an absent source
    (attempt,) = LocalLauncher(held, "mine", print).attempts()
    assert (attempt.exit_code, "/absent" in attempt.reason) == (64, True)


def test_a_folder_in_which_nothing_was_begun_is_removed_in_silence(held: FencedStore, tmp_path: Path) -> None:
    launcher = LocalLauncher(held, "mine", print)
    work = launcher._root / "mine/download/attempt-1"
    work.mkdir(parents=True)
    (work / "spec.json").write_text("{")  # it was killed as it wrote
    assert LocalLauncher(held, "mine", print).attempts() == ()
    assert not work.exists()


def test_a_process_that_even_sigkill_does_not_end_is_said(
    held: FencedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local, "GRACE_S", 0.2)
    monkeypatch.setattr(local, "_signal", lambda *_: None)  # as of a process that waits for a disk for ever
    launcher = LocalLauncher(held, "mine", print)
    work = launcher._root / "mine/download/attempt-1"
    work.mkdir(parents=True)
    lock = os.open(work.parent / "processes", os.O_RDWR | os.O_CREAT)
    holding = f"import fcntl, time; fcntl.flock({lock}, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holding], pass_fds=[lock], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        os.close(lock)
        with pytest.raises(TemporaryError, match="processes of an earlier attempt"):
            LocalLauncher(held, "mine", print)
        holder.kill()
