"""A controller of pods, killed after each of its effects, on a real API server; of pods see stub_pods.py."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from commands import command
from deployment import ON_A_CLUSTER, Deployment, eventually, is_empty, objects
from points import ALL, points
from stub_pods import NOWHERE, pods_that_work
from tally import record

from isc_jobs.controller.manifest import read_manifest
from isc_jobs.spec.stage import InputRef
from isc_jobs.store import Store, open_store
from isc_jobs.store.artifacts import read_commit

HERE = Path(__file__).parent
pytestmark = [*ON_A_CLUSTER, pytest.mark.timeout(14_400 if ALL else 1200)]


class Runs:
    """Runs of the whole pipeline, each with a store and a name of its own."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self._deployment, self._folder = deployment, folder
        assert self.run(0) == (0, 0)
        self.effects = len((folder / "effects-0").read_text().splitlines())

    def store(self, last: int) -> Store:
        """Of a run."""
        return open_store(f"s3://{self._deployment.bucket}/crash-{last}")

    def run(self, last: int) -> tuple[int, int]:
        """Exit codes of a controller that is killed after its effect ``last`` (0: never), and of the next one."""
        name, folder = f"crash-{last}", self._folder / f"pods-{last}"
        folder.mkdir()
        store = self.store(last)
        arguments = command(*self._deployment.arguments(name, "--store", store.uri, settings=NOWHERE))
        log = self._folder / f"effects-{last}"
        program = [sys.executable, str(HERE / "effects.py"), "SIGKILL", str(last), str(log), *arguments[3:]]
        with pods_that_work(name, store, folder):
            with (self._folder / f"said-{last}.txt").open("w") as said:
                first = subprocess.run(program, stdout=said, stderr=said, check=False).returncode
                began = time.monotonic()
                second = subprocess.run(arguments, stdout=said, stderr=said, check=False).returncode if last else first
            self.seconds = time.monotonic() - began
        return first, second

    def said(self, last: int) -> str:
        """By both controllers."""
        return (self._folder / f"said-{last}.txt").read_text()


def outputs(store: Store, run: str) -> dict[str, object]:
    """Of each stage of a run's manifest, its key, and the names and digests of its files; None where there are none."""
    stages = read_manifest(store, run)[0].stages
    commits = {stage: read_commit(store, InputRef(stage=stage, key=key)) for stage, key in stages.items()}
    return {
        stage: commit and (stages[stage], [(file.name, file.sha256) for file in commit.files])
        for stage, commit in commits.items()
    }


def test_a_controller_of_pods_killed_after_any_effect(deployment: Deployment, tmp_path: Path) -> None:
    runs = Runs(deployment, tmp_path)
    whole = outputs(runs.store(0), "crash-0")
    assert whole
    assert None not in whole.values()
    for point in points(runs.effects, 4):
        codes = runs.run(point)
        fewer = len((tmp_path / f"effects-{point}").read_text().splitlines()) < point  # how often a lease is prolonged
        assert codes == (0 if fewer else -signal.SIGKILL, 0), f"after effect {point}: {runs.said(point)}"
        assert not fewer or point > runs.effects - 5
        store, name = runs.store(point), f"crash-{point}"
        manifest = read_manifest(store, name)[0]
        commits = {stage: read_commit(store, InputRef(stage=stage, key=key)) for stage, key in manifest.stages.items()}
        found = outputs(store, name)
        lost = [stage for stage, files in whole.items() if found.get(stage) != files]
        specs = [info.key.split("/")[2:4] for info in store.list(f"runs/{name}/") if info.key.endswith("/spec.json")]
        repeated = [
            stage for stage, attempt in specs
            if (commit := commits[stage]) is not None and int(attempt.split("-")[1]) > commit.attempt
        ]  # fmt: skip
        record(
            "controller, SIGKILL, all stages, Kubernetes", lost=len(lost), repeated=len(repeated), seconds=runs.seconds
        )
        assert (manifest.state, lost, repeated) == ("succeeded", [], []), f"after effect {point}"
        eventually(partial(is_empty, name), objects(name))
