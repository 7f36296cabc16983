"""A stage program, sent a signal after each of its effects in turn and begun again: what it commits each time.

``python stage_effects.py SIGNAL STORE SPEC FOLDER POINTS``: STORE is what the stage finds, SPEC its specification,
FOLDER an empty one, POINTS how many signals, spread over the effects (with CHAOS=all after every one). Every attempt is
a fork of a process that has imported the program, in a copy of the store. Prints JSON: effects of a whole attempt, and
for every signal the digests of what the attempt after it committed, and how many steps that trained once more.
SIGNAL may be LOADER too: then SIGKILL goes to the stage's loader process.
"""

import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from effects import Effects, to_itself, watch_store
from outputs import digests
from points import points

from isc_jobs.spec.errors import ExitCode
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.stages.runner import run_stage
from isc_jobs.store.artifacts import prefix
from isc_jobs.store.directory import DirectoryStore

CODES = {"SIGKILL": {-signal.SIGKILL}, "SIGTERM": {int(ExitCode.TERMINATED)}}


def kill_loader() -> None:
    """Whatever it does at the moment."""
    for loader in multiprocessing.active_children():
        loader.kill()


class Stage:
    """A stage in copies of a store."""

    def __init__(self, name: str, store: Path, spec: Path, folder: Path) -> None:
        self.store, self.folder, self.spec = store, folder, StageSpec.read(spec)
        self.send, self.codes = (kill_loader, {75}) if name == "LOADER" else (to_itself(name), CODES[name])
        if name == "LOADER":
            self.spec.execution["compute"]["loader_workers"] = 1
        self.ref = InputRef(stage=self.spec.stage, key=self.spec.key)
        self.module = importlib.import_module(f"isc_jobs.stages.{self.spec.program}")

    def place(self, name: str) -> Path:
        """A folder with a copy of the store, in which the stage is not finished."""
        place = self.folder / name
        shutil.copytree(self.store, place / "store", copy_function=os.link)
        shutil.rmtree(place / "store" / prefix(self.ref), ignore_errors=True)
        spec = self.spec.model_copy(update={"store": str(place / "store")})
        (place / "spec.json").write_text(spec.model_dump_json())
        return place

    def attempt(self, place: Path, last: int, log: Path) -> tuple[int, float]:
        """Exit code of an attempt that gets the signal after its effect ``last`` (0: never), and its seconds."""
        began = time.monotonic()
        child = os.fork()
        if not child:
            os._exit(self._run(place, last, log))
        status = os.waitpid(child, 0)[1]
        return os.waitstatus_to_exitcode(status), time.monotonic() - began

    def _run(self, place: Path, last: int, log: Path) -> int:
        with log.with_suffix(".txt").open("a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        os.environ["ISC_JOBS_CACHE"] = str(place / "cache")
        effects = Effects(last, log, self.send)
        watch_store(effects, DirectoryStore)
        if self.spec.program == "train":
            from isc_jobs.training.loop import Trainer

            effects.watch(Trainer, "train_step")
        work = place / f"work-{log.stem}"
        sys.argv = ["stage", "--spec", str(place / "spec.json"), "--work", str(work)]
        return run_stage(self.spec.program, self.module.body)

    def committed(self, place: Path) -> dict[str, str] | None:
        """Digests of the output's files, None if it is not finished."""
        commit = place / "store" / prefix(self.ref) / "commit.json"
        return digests(commit) if commit.exists() else None


def steps(log: Path) -> int:
    """Of a training, that an attempt has done."""
    return log.read_text().count("train_step") if log.exists() else 0


def main() -> None:
    stage = Stage(sys.argv[1], *map(Path, sys.argv[2:5]))
    whole, log = stage.place("whole"), stage.folder / "effects"
    code, _ = stage.attempt(whole, 0, log)
    assert code == 0, log.with_suffix(".txt").read_text()
    effects = len(log.read_text().splitlines())
    stops: list[dict[str, Any]] = []
    for point in points(effects, int(sys.argv[5])):
        place = stage.place(f"stopped-{point}")
        stopped, _ = stage.attempt(place, point, place / "first")
        said = (place / "first.txt").read_text()
        assert stopped in {*stage.codes, 0}, said  # threads write: it may have ended before
        code, seconds = stage.attempt(place, 0, place / "second")
        repeated = steps(place / "first") + steps(place / "second") - steps(log)
        stops.append({"after": point, "stopped": stopped, "code": code, "seconds": seconds, "repeated": repeated,
                      "files": stage.committed(place)})  # fmt: skip
        shutil.rmtree(place)
    print(json.dumps({"effects": effects, "stops": stops}))


if __name__ == "__main__":
    main()
