"""The command line as a user calls it, with settings that run in seconds."""

import os
import subprocess
import sys
from pathlib import Path

PHOTOS = Path(__file__).parents[2] / "examples/photos"
SMALL = [
    "trainings.v83.sample_size=32", "trainings.v83.epochs=2", "trainings.v83.restart_epoch=1",
    "trainings.v86.sample_size=16", "trainings.v98.sample_size=16", "trainings.v86.epochs=1", "trainings.v98.epochs=1",
    "trainings.v107.epochs=1",
    "trainings.v83.input_size=32", "trainings.v86.input_size=32", "trainings.v98.input_size=32",
    "trainings.v107.input_size=32", "extract.input_size=32", "evaluate.compare=[untrained,whitened]",
    "compute.loader_workers=0", "compute.threads=1", "compute.checkpoint_every_steps=1",
]  # fmt: skip


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "isc_jobs.controller", *map(str, arguments)]


def isc_jobs(*arguments: object, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=os.environ | (env or {})
    )


def untraced() -> dict[str, str]:
    """The environment without coverage, for programs that are sent signals: an exception that a handler raises within
    coverage's tracer leaves its lock taken, and the program waits for it for ever.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def run_all(data: Path, store: Path | str, *more: object) -> list[object]:
    """The arguments of a run named ``test`` with small settings."""
    overrides = [part for override in SMALL for part in ("--set", override)]
    return ["run-all", "--profile", "demo", "--source", data, "--store", store, "--run", "test", *overrides, *more]
