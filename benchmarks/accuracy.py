"""What each training and each option adds to finding hard copies: several seeds, one fixed set of queries.

A data set is made of a folder of photos once: training images, references, distractors among them, and hard AugLy
edits as queries that no training sees. The pipeline then runs once a seed, and once a seed and option; all share one
store, so whatever an option does not change is not run again. Options of a training end with v98. Two runs at a time,
a core each, take four fifths of the time of one with two threads. Stopped and started again, it goes on; the table so
far is in table.md.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
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
# Each option alone, on top of the profile.
OPTIONS: dict[str, list[str]] = {
    "mirrored": ["extract.test_time_augmentation=mirror"],
    "mirrored, three sizes": ["extract.test_time_augmentation=full"],
    "score normalisation": ["postprocess.score_normalisation={neighbours: 10, weight: 0.5}"],
    "v86, v98, v107 concatenated, PCA": ["postprocess.concatenate=[v86, v98]"],
    "v98 with KoLeo regulariser": ["trainings.v98.koleo_weight=0.1"],
    "v98 with hard-negative batches": ["trainings.v98.hard_group=4"],
    "v98 in bfloat16": ["compute.precision=bf16"],
}
OF_V98 = {option for option in OPTIONS if option.startswith("v98 ")}
APART = {"v98 in bfloat16"}  # settings of the machine are in no key: such a run needs a store of its own
Numbers = tuple[float, float]  # uAP, recall at precision 90
Table = dict[str, list[Numbers]]  # by row, one a seed
Rows = list[tuple[str, Numbers]]


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
    store, seeds = arguments.work / f"store-{data.name}", range(arguments.seeds)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        try:
            plain = [pool.submit(run_plain, data, store, seed, arguments.overrides) for seed in seeds]
            options = {
                (option, seed): pool.submit(run_option, data, store, seed, option, arguments.overrides, plain[seed])
                for seed in seeds
                for option in arguments.options
            }
            for runs in (plain, *([options[option, seed] for seed in seeds] for option in arguments.options)):
                for run in runs:
                    for name, numbers in run.result():
                        table.setdefault(name, []).append(numbers)
                (arguments.work / "table.md").write_text(as_markdown(table))
        finally:
            pool.shutdown(cancel_futures=True)
    print(as_markdown(table))


def run_plain(data: Path, store: Path, seed: int, overrides: list[str]) -> Rows:
    """The rows of every training with and without postprocess."""
    stages = run_pipeline(data, store, f"seed-{seed}", seed, overrides)
    truth = read_ground_truth(data / "ground_truth_phase2.csv")
    rows: Rows = []
    for name in ("untrained", "whitened", *TRAININGS):
        stage = "extract" if name == "v107" else f"extract-{name}"
        path = store / f"artifacts/{stage}/{stages[stage]}/descriptors.h5"
        rows += [(name, score(path, truth)), (f"{name} + postprocess", score_sharpened(path, truth))]
    return rows


def run_option(data: Path, store: Path, seed: int, option: str, overrides: list[str], plain: Future[Rows]) -> Rows:
    """The row of what comes out at the end, once the plain run of this seed has made what it begins with."""
    plain.result()
    run, last = (
        f"seed-{seed}-option-{list(OPTIONS).index(option)}",
        "extract-v98" if option in OF_V98 else "postprocess",
    )
    if option in APART:
        store = copy_start(store, store.with_name(f"{store.name}-apart"), f"seed-{seed}")
    stages = run_pipeline(data, store, run, seed, [*overrides, *OPTIONS[option]], last)
    truth = read_ground_truth(data / "ground_truth_phase2.csv")
    if option in OF_V98:
        path = store / f"artifacts/extract-v98/{stages['extract-v98']}/descriptors.h5"
        return [(f"{option} + postprocess", score_sharpened(path, truth))]
    path = store / f"artifacts/postprocess/{stages['postprocess']}/v107_iso.h5"
    return [(f"v107, {option} + postprocess", score(path, truth))]


def run_pipeline(
    data: Path, store: Path, run: str, seed: int, settings: list[str], last: str = "evaluate"
) -> dict[str, str]:
    """Keys of the stages of a finished run; its log is beside the store."""
    seeds = [
        f"trainings.{name}.seeds={[10 * seed + 1, 10 * seed + 2][: 2 if name == 'v83' else 1]}" for name in TRAININGS
    ]
    changes = [part for value in [*seeds, *settings] for part in ("--set", value)]
    began = time.monotonic()
    log = store.with_name(f"{store.name}-{run}.log")
    isc_jobs(
        "run-all", "--profile", PROFILE, "--source", data, "--store", store, "--run", run, "--until", last, *changes,
        log=log,
    )  # fmt: skip
    print(f"{run}: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    stages: dict[str, str] = json.loads((store / f"runs/{run}/manifest.json").read_text())["stages"]
    return stages


def copy_start(store: Path, apart: Path, run: str) -> Path:
    """A store that has what stands before v98 in a run, so that v98 is the first training that differs."""
    stages = json.loads((store / f"runs/{run}/manifest.json").read_text())["stages"]
    for stage in ("download", "train-v83", "train-v86"):
        place = f"artifacts/{stage}/{stages[stage]}"
        shutil.copytree(store / place, apart / place, dirs_exist_ok=True)
    return apart


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
        found.append(Descriptors([path.stem for path in files], (bits.astype(np.float32) * 2 - 1) / np.float32(16)))
    return score_descriptors(found[0], found[1], read_ground_truth(data / "ground_truth_phase2.csv"))


def score_descriptors(queries: Descriptors, references: Descriptors, truth: GroundTruth) -> Numbers:
    """UAP and recall at precision 90 on the descriptor track."""
    scores = score_matches(rank_descriptors(queries, references), truth)
    return scores.uap, scores.recall_at_p90


def as_markdown(table: Table) -> str:
    """Mean of the seeds, lowest and highest; for an option also what it adds to the plain runs of the same seeds."""
    rows = ["| descriptors | uAP | added to uAP | recall at precision 90 |", "|---|---|---|---|"]
    for name, numbers in table.items():
        plain = plain_row(name)
        added = [ours[0] - theirs[0] for ours, theirs in zip(numbers, table[plain], strict=True)] if plain else []
        columns = (
            shown([pair[0] for pair in numbers]),
            shown(added, "+") if added else "",
            shown([pair[1] for pair in numbers]),
        )
        rows.append(f"| {name} | {' | '.join(columns)} |")
    return "\n".join([*rows, ""])


def plain_row(name: str) -> str | None:
    """The row without the option that a row has; None if it has none."""
    described = name.removesuffix(" + postprocess")
    if described in OF_V98:
        return "v98 + postprocess"
    return "v107 + postprocess" if described.removeprefix("v107, ") in OPTIONS else None


def shown(values: list[float], sign: str = "") -> str:
    """Mean (lowest, highest), one number where nothing differs."""
    mean, lowest, highest = (f"{value:{sign}.3f}" for value in (statistics.mean(values), min(values), max(values)))
    return mean if lowest == highest else f"{mean} ({lowest}, {highest})"


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
