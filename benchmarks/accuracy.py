"""What each training and each option adds to finding hard copies: several seeds, one fixed set of queries.

A data set is made of a folder of photos once: training images, references, distractors among them, and hard AugLy
edits as queries that no training sees. The pipeline then runs once a seed, and once a seed and option; all share one
store, so whatever an option does not change is not run again. Two runs at a time, a core each, take four fifths of
the time of one with two threads. Stopped and started again, it goes on; the table so far is in table.md.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pdqhash

from isc_jobs.retrieval.metrics import rank_descriptors, score_matches
from isc_jobs.retrieval.submission import Descriptors, GroundTruth, read_descriptors, read_ground_truth
from isc_jobs.retrieval.subtraction import smooth, subtract_negatives
from isc_jobs.spec.profile import load_settings
from isc_jobs.vision.decode import decode_rgb

PROFILE = str(Path(__file__).with_suffix(".yaml"))
TRAININGS = ("v83", "v86", "v98", "v107")
# Each option alone, on top of the profile. What changes a training changes v98 and, through it, v107.
OPTIONS: dict[str, list[str]] = {
    "mirrored": ["extract.test_time_augmentation=mirror"],
    "mirrored, three sizes": ["extract.test_time_augmentation=full"],
    "score normalisation": ["postprocess.score_normalisation={neighbours: 10, weight: 0.5}"],
    "v86, v98, v107 concatenated, PCA": ["postprocess.concatenate=[v86, v98]"],
    "KoLeo regulariser in v98": ["trainings.v98.koleo_weight=0.1"],
    "hard-negative batches in v98": ["trainings.v98.hard_group=4"],
    "bfloat16 from v98 on": ["compute.precision=bf16"],
}
APART = {"bfloat16 from v98 on"}  # settings of the machine are in no key: such a run needs a store of its own
Numbers = tuple[float, float]  # uAP, recall at precision 90
Table = dict[str, list[Numbers]]  # by row, one a seed


def main() -> None:
    """Make the data set, run everything, print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=Path("examples/photos"))
    parser.add_argument("--work", type=Path, default=Path(".demo/accuracy"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--options", nargs="*", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    data = arguments.work / f"dataset-{arguments.photos.resolve().name}"
    isc_jobs("dataset", "make", arguments.photos, "--out", data, "--edits", "hard")
    table: Table = {"perceptual hash (PDQ)": [score_hash(data)]}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        try:
            for option in (None, *arguments.options):  # the plain runs first: the options begin with what they made
                store = arguments.work / f"store-{data.name}"
                if option in APART:  # before the runs that share it begin
                    store = copy_start(store, store.with_name(f"{store.name}-apart"))
                runs = [
                    pool.submit(run_pipeline, data, store, seed, option, arguments.overrides)
                    for seed in range(arguments.seeds)
                ]
                for run in runs:
                    for name, numbers in read_rows(*run.result(), data, option):
                        table.setdefault(name, []).append(numbers)
                (arguments.work / "table.md").write_text(as_markdown(table))
        finally:
            pool.shutdown(cancel_futures=True)
    print(as_markdown(table))


def run_pipeline(data: Path, store: Path, seed: int, option: str | None, overrides: list[str]) -> tuple[Path, str]:
    """Store and name of a finished run; its log is beside the store."""
    place = 0 if option is None else 1 + list(OPTIONS).index(option)
    run = f"seed-{seed}-option-{place}"
    seeds = [
        f"trainings.{name}.seeds={[10 * seed + 1, 10 * seed + 2][: 2 if name == 'v83' else 1]}" for name in TRAININGS
    ]
    changes = [part for value in [*seeds, *overrides, *OPTIONS.get(option or "", [])] for part in ("--set", value)]
    began = time.monotonic()
    log = store.with_name(f"{store.name}-{run}.log")
    isc_jobs(
        "run-all", "--profile", PROFILE, "--source", data, "--store", store, "--run", run, *changes, log=log
    )  # fmt: skip
    print(f"seed {seed}, {option or 'the trainings'}: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return store, run


def copy_start(store: Path, apart: Path) -> Path:
    """A store that has what stands before v98, so that v98 is the first training that differs."""
    for stage in ("download", "train-v83", "train-v86"):
        shutil.copytree(store / "artifacts" / stage, apart / "artifacts" / stage, dirs_exist_ok=True)
    return apart


def read_rows(store: Path, run: str, data: Path, option: str | None) -> Iterator[tuple[str, Numbers]]:
    """The plain run's rows of every training with and without postprocess; of an option what comes out at its end."""
    stages = json.loads((store / f"runs/{run}/manifest.json").read_text())["stages"]
    truth = read_ground_truth(data / "ground_truth_phase2.csv")
    if option is None:
        for name in ("untrained", "whitened", "v83", "v86", "v98", "v107"):
            stage = "extract" if name == "v107" else f"extract-{name}"
            path = store / f"artifacts/{stage}/{stages[stage]}/descriptors.h5"
            yield name, score(path, truth)
            yield f"{name} + postprocess", score_sharpened(path, truth)
    else:
        if "v98" in option and "concatenated" not in option:
            stage = "extract-v98"
            path = store / f"artifacts/{stage}/{stages[stage]}/descriptors.h5"
            yield f"{option}: v98 + postprocess", score_sharpened(path, truth)
        path = store / f"artifacts/postprocess/{stages['postprocess']}/v107_iso.h5"
        yield f"{option}: v107 + postprocess", score(path, truth)


def score(path: Path, truth: GroundTruth) -> Numbers:
    """Of a file of descriptors."""
    return score_descriptors(read_descriptors(path, "query"), read_descriptors(path, "reference"), truth)


def score_sharpened(path: Path, truth: GroundTruth) -> Numbers:
    """Of descriptors after negative embedding subtraction as the profile has it."""
    settings = load_settings(PROFILE).postprocess
    negatives = smooth(read_descriptors(path, "train").rows, settings.dba_neighbours, settings.dba_power)
    sharpened = []
    for name in ("query", "reference"):
        part = read_descriptors(path, name)
        rows = subtract_negatives(part.rows, negatives, settings.negative_neighbours, settings.beta)
        sharpened.append(Descriptors(part.ids, rows))
    return score_descriptors(sharpened[0], sharpened[1], truth)


def score_hash(data: Path) -> Numbers:
    """PDQ's 256 bits as a vector of +-1/16: the squared distance is a 64th of the number of bits that differ."""
    found = []
    for folder in ("query_images_phase2", "reference_images"):
        files = sorted((data / folder).iterdir())
        pictures = (np.asarray(decode_rgb(path.read_bytes())) for path in files)
        bits = np.stack([pdqhash.compute(pixels)[0] for pixels in pictures])
        found.append(Descriptors([path.stem for path in files], (bits.astype(np.float32) * 2 - 1) / 16))
    return score_descriptors(found[0], found[1], read_ground_truth(data / "ground_truth_phase2.csv"))


def score_descriptors(queries: Descriptors, references: Descriptors, truth: GroundTruth) -> Numbers:
    """UAP and recall at precision 90 on the descriptor track."""
    scores = score_matches(rank_descriptors(queries, references), truth)
    return scores.uap, scores.recall_at_p90


def as_markdown(table: Table) -> str:
    """Mean of the seeds, lowest and highest."""
    rows = [f"| {name} | " + " | ".join(shown([pair[n] for pair in numbers]) for n in (0, 1)) + " |"
            for name, numbers in table.items()]  # fmt: skip
    return "\n".join(["| descriptors | uAP | recall at precision 90 |", "|---|---|---|", *rows, ""])


def shown(values: list[float]) -> str:
    """Mean (lowest-highest), one number where nothing differs."""
    if max(values) - min(values) < 0.0005:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def isc_jobs(*arguments: object, log: Path | None = None) -> None:
    """Run a command; its output is shown, or goes to the end of a file."""
    command = [sys.executable, "-m", "isc_jobs.controller", *map(str, arguments)]
    if log is None:
        subprocess.run(command, check=True)
        return
    with log.open("a") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        sys.exit(f"a run ended with exit code {code}: see {log}")


if __name__ == "__main__":
    main()
