"""How long the command line takes to begin: the least of several runs of each command, in turn.

Bytecode is cached, as an installer leaves it; where PYTHONDONTWRITEBYTECODE is set and none is there, every start
compiles all modules anew, which ``--compile`` shows.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PHOTO = next((Path(__file__).parents[1] / "examples/photos").glob("*.jpg"))


def seconds_of(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before, started = os.times(), time.monotonic()
    subprocess.run([sys.executable, "-m", "isc_jobs", *arguments], check=True, capture_output=True, env=environment)
    seconds, after = time.monotonic() - started, os.times()
    return seconds, after[2] - before[2] + after[3] - before[3]


def prepare(work: Path) -> dict[str, list[str]]:
    """The commands; there is a run for ``status`` to show."""
    for place in ("train_images", "reference_images", "query_images"):
        (work / "source" / place).mkdir(parents=True)
        shutil.copy(PHOTO, work / "source" / place / "A.jpg")
    plan = ["run-all", "--profile", "demo", "--source", str(work / "source"), "--store", str(work / "store")]
    subprocess.run([sys.executable, "-m", "isc_jobs", *plan, "--until", "download"], check=True, capture_output=True)
    return {"--help": ["--help"], "status": ["status", "demo", "--store", str(work / "store")],
            "run-all --dry-run": [*plan, "--dry-run"]}  # fmt: skip


def main() -> None:
    """Print a Markdown row for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="keep no bytecode")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        environment["PYTHONDONTWRITEBYTECODE"] = "1" if arguments.compile else ""
        commands = prepare(Path(folder))
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                found[name].append(seconds_of(command, environment))
    for name, seconds in found.items():
        wall, cpu = (min(column) for column in zip(*seconds, strict=True))
        print(f"| isc-jobs {name} | {wall:.2f} s ({cpu:.2f} s CPU) |")


if __name__ == "__main__":
    main()
