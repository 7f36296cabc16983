"""Runs that meet trouble: several ranks, a cancelled run, damaged, full and read-only stores."""

import csv
import json
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from commands import command, isc_jobs, run_all, untraced

V83 = ["--until", "train-v83"]


def history(store: Path) -> list[dict[str, str]]:
    with next(store.glob("artifacts/train-v83/*/history.csv")).open() as file:
        return list(csv.DictReader(file))


def wait_for(store: Path, pattern: str) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = sorted(store.glob(pattern))
        if found:
            return found[-1]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} in {store}")


def child_of(process: "subprocess.Popen[str]") -> int:
    """The process id of the one child."""
    [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
    return int(child)


@pytest.fixture(scope="module")
def downloaded(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds download's output."""
    store = tmp_path_factory.mktemp("downloaded") / "store"
    ran = isc_jobs(*run_all(data, store, "--until", "download"))
    assert ran.returncode == 0, ran.stderr
    return store


@pytest.fixture
def store(downloaded: Path, tmp_path: Path) -> Path:
    """A store of its own with download's output."""
    return Path(shutil.copytree(downloaded, tmp_path / "store"))


@pytest.mark.xdist_group("faults")
def test_two_processes_train_as_one_and_each_leaves_a_log(data: Path, store: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(store, tmp_path / "alone")
    assert isc_jobs(*run_all(data, Path(alone), *V83)).returncode == 0
    two = isc_jobs(*run_all(data, store, *V83, "--set", "compute.processes=2"))
    assert two.returncode == 0, two.stdout + two.stderr
    for ours, theirs in zip(history(store), history(Path(alone)), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=2e-3)
    for rank in (0, 1):
        log = isc_jobs("logs", "test", "train-v83", "--rank", rank, "--store", store)
        assert f"rank {rank} of 2 on cpu" in log.stdout
    absent = isc_jobs("logs", "test", "train-v83", "--rank", 2, "--store", store)
    assert (absent.returncode, "rank 2" in absent.stderr) == (64, True)


@pytest.mark.xdist_group("faults")
def test_a_rank_that_fails_fails_the_attempt_with_its_reason(data: Path, store: Path) -> None:
    ran = isc_jobs(*run_all(data, store, *V83, "--set", "compute.processes=3"))
    assert ran.returncode == 64
    assert "global_batch 16 is not divisible by 3 processes" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.xdist_group("faults")
def test_a_damaged_shard_is_never_used_and_the_sentence_tells_the_remedy(data: Path, store: Path) -> None:
    shard = next(store.glob("artifacts/download/*/shards/train*.tar"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    ran = isc_jobs(*run_all(data, store, *V83))
    assert ran.returncode == 65
    assert "is damaged: SHA-256 is" in ran.stderr
    commit = next(line for line in ran.stderr.split() if line.endswith("commit.json"))
    (store / commit).unlink()
    mended = isc_jobs(*run_all(data, store, *V83))
    assert mended.returncode == 0, mended.stderr


@pytest.mark.xdist_group("faults")
def test_a_lost_shard_makes_the_stage_run_again(data: Path, store: Path) -> None:
    next(store.glob("artifacts/download/*/shards/train*.tar")).unlink()
    ran = isc_jobs(*run_all(data, store, "--until", "download"))
    assert ran.returncode == 0, ran.stderr
    assert "download  files of the finished output are lost, it is made again" in ran.stdout


@pytest.mark.xdist_group("faults")
def test_the_log_of_a_running_stage_is_read_where_it_runs(data: Path, store: Path) -> None:
    arguments = run_all(data, store, *V83, "--set", "trainings.v83.sample_size=3200")
    controller = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True, env=untraced())
    try:
        wait_for(store, "checkpoints/*/step-000000002/marker.json")
        log = isc_jobs("logs", "test", "train-v83", "--store", store)
        assert (log.returncode, "rank 0 of 1 on cpu" in log.stdout) == (0, True)
        assert not list(store.glob("runs/test/train-v83/*/log-0.txt.gz"))  # it has not ended
        elsewhere = isc_jobs("logs", "test", "train-v83", "--store", store, env={"ISC_JOBS_WORK": str(store.parent)})
        assert (elsewhere.returncode, "on the machine or in the cluster where it runs" in elsewhere.stderr) == (
            64,
            True,
        )
        shown = [
            subprocess.Popen(command(*what, "--store", store), stdout=subprocess.PIPE, text=True)
            for what in (("logs", "test", "train-v83", "--follow"), ("status", "test", "--watch"))
        ]
        wait_for(store, "runs/test/train-v83/*/progress.json")
        status = json.loads(isc_jobs("status", "test", "--store", store, "--json").stdout)
        training = next(stage for stage in status["stages"] if stage["stage"] == "train-v83")
        assert training["where"] == f"process {child_of(controller)} on {platform.node()}"
        said = training["progress"]["line"]
    finally:
        controller.terminate()
        controller.communicate(timeout=60)
    followed, watched = (process.communicate(timeout=60)[0] for process in shown)
    kept = isc_jobs("logs", "test", "train-v83", "--store", store).stdout
    assert f"train-v83  {said}" in kept.splitlines()
    assert followed == "".join(f"train-v83 1.0 | {line}\n" for line in kept.splitlines())
    assert re.search(r"^[0-9:]{8}    train-v83 +running", watched, re.MULTILINE)
    assert watched.splitlines()[0].endswith("run test: running")
    assert "run test: interrupted (SIGTERM)" in watched


@pytest.mark.xdist_group("faults")
def test_a_cancelled_run_keeps_a_checkpoint_a_damaged_one_is_passed_over(data: Path, store: Path) -> None:
    arguments = run_all(data, store, *V83, "--set", "trainings.v83.sample_size=320")
    controller = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True)
    wait_for(store, "checkpoints/*/step-000000003/marker.json")
    cancelled = isc_jobs("cancel", "test", "--store", store)
    assert (cancelled.returncode, "asked to end" in cancelled.stdout) == (0, True)
    output, _ = controller.communicate(timeout=60)
    assert controller.returncode == 130
    assert "is cancelled; what is finished stays" in output
    assert json.loads(isc_jobs("status", "test", "--store", store, "--json").stdout)["state"] == "cancelled"
    again = isc_jobs("cancel", "test", "--store", store)
    assert "not running: cancelled" in again.stdout

    latest = wait_for(store, "checkpoints/*/step-*/state.pt")
    step = int(latest.parent.name.removeprefix("step-"))
    content = bytearray(latest.read_bytes())
    content[len(content) // 2] ^= 1
    latest.write_bytes(content)
    resumed = isc_jobs("resume", "test", "--store", store)
    assert resumed.returncode == 0, resumed.stderr
    assert f"checkpoint of step {step} is damaged and not used" in resumed.stdout
    assert f"from step {step - 1}" in resumed.stdout
    assert len(history(store)) == 40
    assert not list(store.glob("checkpoints/*/*"))


@pytest.mark.xdist_group("faults")
def test_a_full_store_is_one_sentence_and_loses_nothing(data: Path, mount: Path) -> None:
    ran = isc_jobs(*run_all(data, mount / "store", "--until", "download"))
    assert ran.returncode == 75
    assert "No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr
    subprocess.run(["mount", "-o", "remount,size=100m", mount], check=True)
    assert isc_jobs(*run_all(data, mount / "store", "--until", "download")).returncode == 0


@pytest.mark.xdist_group("faults")
def test_a_read_only_store_is_refused_in_one_sentence(data: Path, mount: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    for store in (mount, mount / "store"):
        ran = isc_jobs(*run_all(data, store, "--until", "download"))
        assert ran.returncode == 64
        assert "cannot be written (Read-only file system)" in ran.stderr
        assert len(ran.stderr.strip().splitlines()) == 1
