"""How CPU time and peak memory of every stage grow with the data: each stage program really run, at several scales.

Pictures are small crops of the example photos, all different; the backbone is tiny. Prints a Markdown table with a fit
a + b * n^c over the scales. It is no forecast for the 2.1 million pictures of the challenge, 200 times as many as the
most here: ``isc-jobs estimate`` is one. Ten minutes on an idle machine; ``--scales 1 10`` is quicker.
"""

import argparse
import csv
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Settings
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.store.listing import source_digest
from isc_jobs.store.source import open_source

ROOT = Path(__file__).parents[1]
UNIT = {"train_images": 100, "reference_images": 100, "query_images": 20, "query_images_phase2": 20}
LETTERS = {"train_images": "T{:06d}", "reference_images": "R{:06d}", "query_images": "Q{:05d}",
           "query_images_phase2": "Q{:05d}"}  # fmt: skip
SIDE = 64
SETTINGS = (
    "model.backbone=test_efficientnet", "model.pretrained=none", "model.head=whitened", "model.dimensions=64",
    "extract.input_size=32",
    "trainings.v83.epochs=1", "trainings.v83.sample_size=null", "trainings.v83.restart_epoch=null",
    "trainings.v83.seeds=[9]", "trainings.v83.input_size=32", "trainings.v83.global_batch=20",
    "compute.checkpoint_every_steps=auto", "data.shard_megabytes=1",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Of a stage program and what it started."""

    cpu_s: float
    wall_s: float
    peak_mb: float  # of its largest process


def main() -> None:
    """Run all scales, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 10, 100])
    scales = parser.parse_args().scales
    with tempfile.TemporaryDirectory() as folder:
        measured = {scale: run_scale(Path(folder) / str(scale), scale) for scale in scales}
    print(table(measured))


def run_scale(folder: Path, scale: int) -> dict[str, Cost]:
    """Every stage at a scale, one after the other."""
    began = time.monotonic()
    make_source(folder / "source", scale)
    print(f"{scale}x: pictures made in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    costs = {}
    for spec in specs(folder, load_settings("demo", SETTINGS)):
        costs[spec.stage] = run_stage(spec, folder)
        print(f"{scale}x: {spec.stage}: {costs[spec.stage]}", file=sys.stderr, flush=True)
    return costs


def make_source(root: Path, scale: int) -> None:
    """Pictures in the challenge's layout; for half of the queries the ground truth names a reference."""
    photos = [Image.open(path).convert("RGB") for path in sorted((ROOT / "examples/photos").glob("*.jpg"))[:40]]
    rng = np.random.default_rng(scale)
    for folder, count in UNIT.items():
        (root / folder).mkdir(parents=True)
        first = 50_000 if folder.endswith("phase2") else 0
        for number in range(count * scale):
            name = LETTERS[folder].format(first + number)
            (root / folder / f"{name}.jpg").write_bytes(_crop(photos, rng))
    for phase, first in (("1", 0), ("2", 50_000)):
        queries = range(UNIT["query_images"] * scale)
        rows = [(f"Q{first + n:05d}", f"R{n:06d}" if n % 2 else "") for n in queries]
        with (root / f"ground_truth_phase{phase}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("query_id", "reference_id"), *rows])


def _crop(photos: Sequence[Image.Image], rng: np.random.Generator) -> bytes:
    photo = photos[int(rng.integers(len(photos)))]
    size = int(rng.integers(SIDE, min(photo.size) + 1))
    left, top = (int(rng.integers(side - size + 1)) for side in photo.size)
    data = io.BytesIO()
    photo.resize((SIDE, SIDE), box=(left, top, left + size, top + size)).save(data, "JPEG", quality=85)
    return data.getvalue()


def specs(folder: Path, settings: Settings) -> Iterator[StageSpec]:
    """Of the stages, each with the outputs of those before; extraction takes v83's weights."""
    values, source = settings.model_dump(mode="json"), open_source(str(folder / "source"))
    digest = source_digest(source, folder / "listing")
    compute = {"compute": values["compute"]}
    refs = {name: InputRef(stage=name, key=f"{number:064d}") for number, name in enumerate(
        ("download", "train-v83", "extract", "postprocess", "evaluate"))}  # fmt: skip
    data, weights, descriptors = refs["download"], refs["train-v83"], refs["extract"]
    v83 = {"model": values["model"], "training": values["trainings"]["v83"]}
    plans: dict[str, tuple[dict[str, Any], dict[str, InputRef], dict[str, Any], dict[str, Any]]] = {
        "download": ({"data": values["data"]}, {}, {"source_digest": digest}, {"source": source.uri}),
        "train-v83": (v83, {"data": data}, {}, {}),
        "extract": (
            {"model": values["model"], "extract": values["extract"]}, {"data": data, "weights": weights}, {}, {},
        ),
        "postprocess": ({"postprocess": values["postprocess"]}, {"extract": descriptors}, {}, {}),
        "evaluate": (
            {"evaluate": values["evaluate"], "queries": "phase2"},
            {name: refs[name] for name in ("download", "train-v83", "extract", "postprocess")}, {}, {},
        ),
    }  # fmt: skip
    for stage, (chosen, inputs, parameters, execution) in plans.items():
        yield StageSpec(
            program=stage.partition("-")[0], stage=stage, key=refs[stage].key, run="growth", attempt=1,
            store=str(folder / "store"), settings=chosen, inputs=inputs, parameters=parameters,
            execution=execution | compute,
        )  # fmt: skip


def run_stage(spec: StageSpec, folder: Path) -> Cost:
    """The program in a process of its own; what the system says it took."""
    path = folder / f"{spec.stage}.json"
    path.write_text(spec.model_dump_json())
    program = ["-m", f"isc_jobs.stages.{spec.program}", "--spec", str(path), "--work", str(folder / spec.stage)]
    started = time.monotonic()
    with (folder / f"{spec.stage}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *program], stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((folder / f"{spec.stage}.log").read_text("utf-8"))
    # With it are counted the processes that it has waited for, its loaders.
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - started, usage.ru_maxrss * 1024 / 1e6)


def fit(scales: Sequence[float], values: Sequence[float]) -> tuple[float, float, float] | None:
    """a, b, c of a + b * n^c by least squares of the relative errors, c from 0.2 to 3; None of fewer than 3 scales."""
    if len(scales) < 3:
        return None
    n, y = np.array(scales, float), np.array(values, float)
    best: tuple[float, tuple[float, float, float]] | None = None
    for c in np.arange(0.2, 3.001, 0.02):
        columns = np.stack([np.ones_like(n), n**c], axis=1) / y[:, None]
        (a, b), *_ = np.linalg.lstsq(columns, np.ones_like(y), rcond=None)
        a, b = max(0.0, a), max(0.0, b)
        error = float((((a + b * n**c) / y - 1) ** 2).sum())
        if best is None or error < best[0]:
            best = error, (float(a), float(b), float(c))
    assert best is not None
    return best[1]


def table(measured: dict[int, dict[str, Cost]]) -> str:
    """Markdown, of both quantities."""
    scales = list(measured)
    pictures = [f"{scale * sum(UNIT.values()):,}" for scale in scales]
    lines = []
    for title, unit, attribute in (("CPU time", "s", "cpu_s"), ("peak memory", "MB", "peak_mb")):
        heads = [f"{title}, {unit}", *(f"{n} pictures" for n in pictures), "fit"]
        lines += ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for stage in measured[scales[0]]:
            values = [getattr(measured[scale][stage], attribute) for scale in scales]
            found = fit(scales, values)
            shown = "-" if found is None else f"{found[0]:.3g} + {found[1]:.3g} n^{found[2]:.2f}"
            lines.append("| " + " | ".join([stage, *(f"{value:,.1f}" for value in values), shown]) + " |")
    return "\n".join([*lines[1:], "", f"n: scale, of {sum(UNIT.values())} pictures."])


if __name__ == "__main__":
    main()
