"""What a stage needs is gone, or hangs: the sentence, and the same bytes once it is there again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import command, isc_jobs, run_all, untraced
from outputs import digests
from points import ALL
from tally import record

from isc_jobs.spec.stage import StageSpec

pytestmark = [pytest.mark.xdist_group("finished"), pytest.mark.timeout(900)]


def copy(finished: Path, place: Path) -> Path:
    """A store with the same objects, none of which a test changes in place."""
    return Path(shutil.copytree(finished, place / "store", copy_function=os.link))


def commit_of(store: Path, stage: str) -> Path:
    return next(store.glob(f"artifacts/{stage}/*/commit.json"))


def attempt(store: Path, stage: str, work: Path, **environment: object) -> "subprocess.CompletedProcess[str]":
    """A stage by its specification in the store, as a container runs it."""
    spec = StageSpec.read(store / f"runs/test/{stage}/attempt-1/spec.json").model_copy(update={"store": str(store)})
    file = store.parent / f"{stage}.json"
    file.write_text(spec.model_dump_json())
    program = [sys.executable, "-m", f"isc_jobs.stages.{spec.program}", "--spec", str(file), "--work", str(work)]
    more = {name: str(value) for name, value in environment.items()}
    return subprocess.run(program, capture_output=True, text=True, check=False, env=os.environ | more)


@pytest.mark.parametrize(
    ("stage", "room"),
    [
        ("download", 0),
        ("train-v83", 0),
        *([("train-v83", 1 << 18), ("extract", 0), ("extract", 1 << 18)] if ALL else []),
    ],
)
def test_a_full_disk_of_the_work_folder_is_a_sentence_and_costs_no_result(
    finished: Path, tmp_path: Path, mount: Path, stage: str, room: int
) -> None:
    """``room``: bytes that are free, beside fetched inputs which are elsewhere then; 0: those fill the disk."""
    store, cache = copy(finished, tmp_path), mount / "cache"
    expected = digests(commit_of(store, stage))
    shutil.rmtree(commit_of(store, stage).parent)
    if room:
        cache = tmp_path / "cache"
        (mount / "filler").write_bytes(bytes(shutil.disk_usage(mount).free - room))
    began = time.monotonic()
    ran = attempt(store, stage, mount / "work", ISC_JOBS_CACHE=cache)
    assert ran.returncode == 75, ran.stdout + ran.stderr
    sentence = ran.stderr.strip().splitlines()[-1]
    assert "is full: free space" in sentence or "MB are free there" in sentence
    assert not list(store.glob(f"artifacts/{stage}/*/commit.json"))
    subprocess.run(["mount", "-o", "remount,size=1g", mount], check=True)
    again = attempt(store, stage, mount / "work-2", ISC_JOBS_CACHE=cache)
    assert again.returncode == 0, again.stderr
    lost = digests(commit_of(store, stage)) != expected
    record(f"stage {stage}, disk of the work folder full", lost=int(lost), repeated=0, seconds=time.monotonic() - began)
    assert not lost


CONSUMERS = [
    ("train-v86", "train-v83", "checkpoint.pth.tar"), ("postprocess", "extract", "descriptors.h5"),
    *([("extract", "train-v107", "checkpoint.pth.tar"), ("evaluate", "extract", "descriptors.h5")] if ALL else []),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "maker", "file"), CONSUMERS)
@pytest.mark.parametrize("damage", ["lost", "cut", "changed"] if ALL else ["lost"])
def test_no_consumer_uses_what_the_store_has_lost_or_spoilt(
    finished: Path, tmp_path: Path, stage: str, maker: str, file: str, damage: str
) -> None:
    store = copy(finished, tmp_path)
    shutil.rmtree(commit_of(store, stage).parent)
    path = commit_of(store, maker).parent / file
    content = bytearray(path.read_bytes())
    path.unlink()  # it is a link
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "changed":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    ran = attempt(store, stage, tmp_path / "work")
    assert ran.returncode == 65, ran.stdout + ran.stderr
    assert str(path.relative_to(store)) in ran.stderr.strip().splitlines()[-1]
    assert not list(store.glob(f"artifacts/{stage}/*/commit.json"))


def test_a_lost_checkpoint_is_noticed_before_use_and_made_again(finished: Path, data: Path, tmp_path: Path) -> None:
    store = copy(finished, tmp_path)
    expected = digests(commit_of(store, "train-v86"))
    (commit_of(store, "train-v86").parent / "checkpoint.pth.tar").unlink()
    began = time.monotonic()
    ran = isc_jobs(*run_all(data, store))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    repeated = [path.parent.name for path in store.glob("runs/test/*/attempt-2") if path.parent.name != "train-v86"]
    lost = digests(commit_of(store, "train-v86")) != expected
    record(
        "stage train-v86, its checkpoint lost by the store",
        lost=int(lost),
        repeated=len(repeated),
        seconds=time.monotonic() - began,
    )
    assert (lost, repeated) == (False, [])


def processes_of(store: Path, attempt: str) -> list[int]:
    """Of an attempt's ranks."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            said = (path / "cmdline").read_bytes().decode("utf-8", "replace")
            environment = (path / "environ").read_bytes()
        except OSError:
            continue
        ours = str(store.parent / "work").encode() in environment and f"/{attempt}\0" in said
        if ours and "torch.distributed.run" not in said:
            found.append(int(path.name))
    return found


def eventually(true: Callable[[], object], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("ranks", [2, 1] if ALL else [2])
def test_a_training_that_hangs_is_ended_and_goes_on(finished: Path, data: Path, tmp_path: Path, ranks: int) -> None:
    """The last rank stands still: with it its peers, and torchrun, which does not notice."""
    store = tmp_path / "store"
    shutil.copytree(finished / "artifacts/download", store / "artifacts/download")
    settings = [f"compute.processes={ranks}", "compute.silence_seconds=60", "trainings.v83.sample_size=160"]
    arguments = run_all(data, store, "--until", "train-v83", *(part for one in settings for part in ("--set", one)))
    environment = untraced() | {"ISC_JOBS_WORK": str(tmp_path / "work")}
    with (tmp_path / "said.txt").open("w") as said:
        controller = subprocess.Popen(command(*arguments), stdout=said, stderr=said, env=environment)
        eventually(lambda: list(store.glob("checkpoints/*/step-000000003/marker.json")))
        number = len(list(store.glob("runs/test/train-v83/attempt-*")))  # a busy machine may be silent from the start
        hung = processes_of(store, f"attempt-{number}")
        assert len(hung) == ranks
        os.kill(max(hung), signal.SIGSTOP)
        began = time.monotonic()
        eventually(lambda: list(store.glob(f"runs/test/train-v83/attempt-{number + 1}")))
        assert processes_of(store, f"attempt-{number}") == []
        code = controller.wait()
    manifest = json.loads((store / "runs/test/manifest.json").read_text())
    record(f"stage train-v83, a rank of {ranks} hangs", lost=0, repeated=0, seconds=time.monotonic() - began)
    stopped, *_, last = [entry for entry in manifest["attempts"] if entry["stage"] == "train-v83"][number - 1 :]
    assert code == 0, (tmp_path / "said.txt").read_text()
    assert (stopped["exit_code"], stopped["kind"]) == (124, "temporary")
    assert stopped["reason"].startswith("said nothing for 60 s")
    assert last["kind"] == "finished"
    assert "from step 0" not in (tmp_path / "said.txt").read_text().rpartition("said nothing")[2]
