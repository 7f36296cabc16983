"""Whatever was killed or told to stop, and after which of its effects: the same command again ends the run with the
same bytes.

Signals are spread over all effects; with CHAOS=all every one has its turn.
"""

import json
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from beside import beside
from commands import command, isc_jobs, run_all, untraced
from outputs import digests
from points import ALL, points
from tally import record

HERE = Path(__file__).parent
_ATTEMPT = re.compile(r"isc_jobs\.stages\.\S+ .*--work \S*/([^/]+)/attempt-(\d+)")
pytestmark = pytest.mark.timeout(7200 if ALL else 900)


def run_files(store: Path) -> dict[str, dict[str, str]]:
    """What is committed, by stage."""
    return {path.parent.parent.name: digests(path) for path in sorted(store.glob("artifacts/*/*/commit.json"))}


def repeated_stages(store: Path) -> list[str]:
    """Stages of which an attempt was begun after the one that finished it."""
    found = []
    for path in store.glob("artifacts/*/*/commit.json"):
        commit = json.loads(path.read_text())
        begun = [int(spec.parent.name.split("-")[1]) for spec in store.glob(f"runs/test/{commit['stage']}/*/spec.json")]
        if begun and max(begun) > commit["attempt"]:
            found.append(commit["stage"])
    return found


@contextmanager
def one_attempt_at_a_time(store: Path) -> Iterator[None]:
    """No two attempts of a stage of this store have processes at once."""
    found: set[tuple[str | int, ...]] = set()

    def look() -> None:
        numbers: dict[str, set[int]] = defaultdict(set)
        for path in Path("/proc").glob("[0-9]*"):
            try:
                said = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                ours = str(store.parent / "work").encode() in (path / "environ").read_bytes()
            except OSError:
                continue
            if ours and (match := _ATTEMPT.search(said)):
                numbers[match[1]].add(int(match[2]))
        found.update((stage, *sorted(alive)) for stage, alive in numbers.items() if len(alive) > 1)

    with beside(look, 0.03):
        yield
    assert not found


class Runs:
    """Runs of one pipeline, each with a store of its own."""

    def __init__(self, data: Path, folder: Path, *more: object) -> None:
        self._data, self._folder, self._more = data, folder, more
        self.store = folder / "whole" / "store"
        assert self.sent("SIGKILL", self.store, 0) == 0, (folder / "whole/said.txt").read_text()
        self.effects = len((folder / "whole/effects").read_text().splitlines())

    def place(self, name: str) -> Path:
        """Where a store is to be."""
        return self._folder / name / "store"

    def sent(self, name: str, store: Path, last: int) -> int:
        """The exit code of a controller that gets this signal after its effect ``last``; 0: never."""
        store.parent.mkdir()
        arguments = command(*run_all(self._data, store, *self._more))
        log = str(store.parent / "effects")
        program = [sys.executable, str(HERE / "effects.py"), name, str(last), log, *arguments[3:]]
        with (store.parent / "said.txt").open("w") as said:
            environment = untraced() | self.environment(store)
            return subprocess.run(program, env=environment, stdout=said, stderr=said, check=False).returncode

    def again(self, store: Path) -> "subprocess.CompletedProcess[str]":
        """The command as a user gives it again."""
        return isc_jobs(*run_all(self._data, store, *self._more), env=self.environment(store))

    @staticmethod
    def environment(store: Path) -> dict[str, str]:
        """Work of its own, by which its processes are known."""
        return {"ISC_JOBS_WORK": str(store.parent / "work")}


# Exit codes of a controller: killed; told to stop, before it holds the run or while it does.
CODES = {"SIGKILL": {-signal.SIGKILL}, "SIGTERM": {-signal.SIGTERM, 143}, "SIGINT": {130}}


def stop_everywhere(name: str, runs: Runs, few: int, what: str) -> None:
    """Send the signal, run again, compare."""
    expected, chosen, stopped = run_files(runs.store), points(runs.effects, few), 0
    for point in chosen:
        store = runs.place(f"{name}-{point}")
        with one_attempt_at_a_time(store):
            code = runs.sent(name, store, point)
            assert code in {*CODES[name], 0}  # how often a lease is prolonged is a matter of time
            stopped += code != 0
            began = time.monotonic()
            again = runs.again(store)
        seconds = time.monotonic() - began
        assert again.returncode == 0, f"after effect {point}: {again.stdout}{again.stderr}"
        found, repeated = run_files(store), repeated_stages(store)
        lost = [stage for stage in expected if found.get(stage) != expected[stage]]
        record(f"controller, {name}, {what}", lost=len(lost), repeated=len(repeated), seconds=seconds)
        assert (lost, repeated) == ([], []), f"after effect {point}"
        manifest = json.loads((store / "runs/test/manifest.json").read_text())
        assert (manifest["state"], manifest["stages"]) == ("succeeded", whole_manifest(runs)["stages"])
        assert not list((store.parent / "work").glob("*/test/*/attempt-*"))  # logs of all attempts are in the store
    spared = 1 if name == "SIGKILL" else 2  # the end of a run is not interrupted
    assert stopped >= max(1, len(chosen) - spared)


def whole_manifest(runs: Runs) -> dict[str, Any]:
    """Of the run that nobody killed."""
    return dict(json.loads((runs.store / "runs/test/manifest.json").read_text()))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Download and a training."""
    return Runs(data, tmp_path_factory.mktemp("trained"), "--until", "train-v83")


@pytest.mark.xdist_group("crash-controller")
@pytest.mark.parametrize(("name", "few"), [("SIGKILL", 2), ("SIGTERM", 1), ("SIGINT", 1)])
def test_a_controller_stopped_after_any_effect_of_a_training(trained: Runs, name: str, few: int) -> None:
    stop_everywhere(name, trained, few, "download and a training, local")


@pytest.mark.skipif(not ALL, reason="minutes a try: with CHAOS=all")
@pytest.mark.xdist_group("crash-controller")
def test_a_controller_killed_after_any_effect_from_given_weights_on(
    trained: Runs, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    weights = next(trained.store.glob("artifacts/train-v83/*/checkpoint.pth.tar"))
    runs = Runs(data, tmp_path_factory.mktemp("inference"), "--weights", weights)
    stop_everywhere("SIGKILL", runs, 2, "weights to report, local")


STAGES = [("download", 2), ("train-v83", 2), ("train-v107", 1), ("extract", 1), ("postprocess", 1), ("evaluate", 1)]
SENT = {"SIGKILL": "SIGKILL", "SIGTERM": "SIGTERM", "LOADER": "SIGKILL to its loader process"}
STOPS = [(stage, few, name) for stage, few in STAGES for name in ("SIGKILL", "SIGTERM")]
STOPS += [("train-v83", 4, "LOADER"), ("extract", 4, "LOADER")]
# Alike, and so with CHAOS=all alone.
SELDOM = {("download", "SIGTERM"), ("train-v107", "SIGKILL"), ("train-v107", "SIGTERM"), ("extract", "SIGTERM"),
          ("postprocess", "SIGKILL"), ("evaluate", "SIGKILL"), ("extract", "LOADER")}  # fmt: skip


@pytest.mark.xdist_group("finished")
@pytest.mark.parametrize(("stage", "few", "name"), [stop for stop in STOPS if ALL or stop[::2] not in SELDOM])
def test_a_stage_stopped_after_any_write_or_step(
    finished: Path, stage: str, few: int, name: str, tmp_path: Path
) -> None:
    spec = finished / f"runs/test/{stage}/attempt-1/spec.json"
    program = [sys.executable, str(HERE / "stage_effects.py"), name, finished, spec, tmp_path, few]
    ran = subprocess.run([str(part) for part in program], capture_output=True, text=True, check=False, env=untraced())
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    expected = run_files(finished)[stage]
    stopped = [stop for stop in found["stops"] if stop["stopped"]]  # how often progress is written is a matter of time
    assert len(stopped) >= (1 if name == "LOADER" else len(found["stops"]) / 2)  # nor is a loader always there
    for stop in stopped:
        lost = stop["files"] != expected
        record(f"stage {stage}, {SENT[name]}", lost=int(lost), repeated=0, seconds=stop["seconds"])
        assert (stop["code"], lost) == (0, False), f"{stage} after effect {stop['after']} of {found['effects']}"
        assert name != "SIGTERM" or not stop["repeated"], "steps of a training that had time for a checkpoint"
