"""Processes that are killed or stopped, disks that are full, clocks that are off: real ones, but small."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stores import held
from test_local_launcher import STUBBORN, spec, wait_for
from torch.utils.data import DataLoader, Dataset, get_worker_info

from isc_jobs.controller import local
from isc_jobs.controller.lease import FencedStore
from isc_jobs.controller.local import LocalLauncher
from isc_jobs.spec.errors import TemporaryError, UsageError
from isc_jobs.training.checkpoint import save_tensors
from isc_jobs.training.lost_processes import lost_processes

__all__ = ["held"]

RANK = """
import os, sys, torch
from isc_jobs.training.distributed import any_rank, join_world
from isc_jobs.training.lost_processes import lost_processes
from isc_jobs.spec.errors import TemporaryError
try:
    with lost_processes(), join_world() as world:
        while True:
            any_rank(False, world)
            print("met", flush=True)
except TemporaryError as error:
    print(error, flush=True)
    os._exit(75)
"""


class _Deadly(Dataset[int]):
    """Its second picture takes more memory than there is."""

    def __getitem__(self, place: int) -> int:
        if place == 1 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return place

    def __len__(self) -> int:
        return 4


def test_a_killed_loader_process_is_temporary_and_named() -> None:
    with (
        pytest.raises(TemporaryError, match=r"DataLoader worker \(pid.*fewer compute.loader_workers"),
        lost_processes(),
    ):
        list(DataLoader(_Deadly(), num_workers=1))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1"), lost_processes():
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_a_killed_rank_is_temporary_for_the_others(tmp_path: Path) -> None:
    environment = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577"}
    ranks = []
    for rank in range(2):
        with (tmp_path / str(rank)).open("w") as said:
            ranks.append(
                subprocess.Popen([sys.executable, "-c", RANK], stdout=said, env=environment | {"RANK": str(rank)})
            )
    wait_for(tmp_path / "0", b"met")
    ranks[1].kill()
    ranks[1].wait()
    assert ranks[0].wait(60) == 75
    assert "another process of this training does not answer" in (tmp_path / "0").read_text()


def test_an_attempt_stopped_for_silence_is_killed_and_says_so(
    held: FencedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local, "GRACE_S", 0.5)
    monkeypatch.setattr(local, "_command", lambda *_: [sys.executable, "-c", STUBBORN])
    launcher = LocalLauncher(held, "mine", print)
    launcher.start(spec(held))
    (log,) = (tmp_path / "work").glob("*/mine/download/attempt-1/log-0.txt")
    wait_for(log, b"up")
    os.kill(launcher._processes[0].popen.pid, signal.SIGSTOP)
    launcher.stop("download", 1, "said nothing for 5 s", 124)
    (attempt,) = launcher.attempts()
    assert (attempt.exit_code, attempt.reason) == (124, "said nothing for 5 s; not ended after 0.5 s, it was killed")
    kept = json.loads(held.get("runs/mine/download/attempt-1/termination.json")[0])
    assert kept["reason"].startswith("said nothing for 5 s")


def test_tensors_that_a_full_disk_does_not_take_are_temporary(mount: Path) -> None:
    with pytest.raises(TemporaryError, match=r"x\.pt cannot be written, \d+ MB are free there"):
        save_tensors({"a": torch.zeros(1_000_000)}, mount / "x.pt")


@pytest.mark.parametrize(("full", "kind"), [(True, TemporaryError), (False, UsageError)], ids=["full", "read-only"])
def test_a_work_folder_that_takes_nothing_is_a_sentence(
    held: FencedStore, mount: Path, monkeypatch: pytest.MonkeyPatch, full: bool, kind: type[Exception]
) -> None:
    monkeypatch.setenv("ISC_JOBS_WORK", str(mount))
    launcher = LocalLauncher(held, "mine", print)
    if full:
        (mount / "much").write_bytes(bytes(1_000_000))
        with pytest.raises(OSError, match="No space"):
            (mount / "more").write_bytes(bytes(60_000))
    else:
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    with pytest.raises(kind, match=r"work folder .* cannot be written .* ISC_JOBS_WORK"):
        launcher.start(spec(held))
