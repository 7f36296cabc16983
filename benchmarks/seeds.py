"""The demo's scores over several seeds: each splits the photos, edits the queries and trains anew."""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

TRAININGS = ("v83", "v86", "v98", "v107")
Scores = dict[str, float]


def main() -> None:
    """Run the pipeline once a seed and print mean, lowest and highest of every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=Path("examples/photos"))
    parser.add_argument("--work", type=Path, default=Path(".demo/seeds"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    scores: dict[str, list[Scores]] = {}
    for seed in range(arguments.seeds):
        for name, row in run(arguments.photos, arguments.work, seed, arguments.overrides):
            scores.setdefault(name, []).append(row)
    print(f"\n{arguments.seeds} seeds: mean (lowest-highest)")
    for name, rows in scores.items():
        uap, recall = ([row[key] for row in rows] for key in ("uap", "recall_at_p90"))
        print(f"{name:<12}uAP {shown(uap)}   R@P90 {shown(recall)}")


def run(photos: Path, work: Path, seed: int, overrides: list[str]) -> list[tuple[str, Scores]]:
    """Names and scores of the rows of a run with this seed."""
    data, store = work / f"{photos.name}-{seed}", work / "store"
    isc_jobs("dataset", "make", photos, "--out", data, "--seed", seed)
    seeds = [
        f"trainings.{name}.seeds={[10 * seed + 1, 10 * seed + 2][: 2 if name == 'v83' else 1]}" for name in TRAININGS
    ]
    settings = [part for value in [*seeds, *overrides] for part in ("--set", value)]
    name = f"seed-{seed}"
    isc_jobs("run-all", "--profile", "demo", "--source", data, "--store", store, "--run", name, *settings)
    stages = json.loads((store / f"runs/{name}/manifest.json").read_text())["stages"]
    scores = json.loads((store / f"artifacts/evaluate/{stages['evaluate']}/scores.json").read_text())
    return [(row["name"], row["descriptor"]) for row in scores["rows"]]


def isc_jobs(*arguments: object) -> None:
    """Run a command; its output is shown."""
    subprocess.run([sys.executable, "-m", "isc_jobs.controller", *map(str, arguments)], check=True)


def shown(values: list[float]) -> str:
    """Mean, lowest and highest."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


if __name__ == "__main__":
    main()
