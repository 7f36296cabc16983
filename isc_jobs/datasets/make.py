"""A copy-detection benchmark from any folder of pictures, in the challenge's layout."""

import csv
import hashlib
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.plain import plain
from isc_jobs.spec.stage import first_problem
from isc_jobs.store.source import check_folder
from isc_jobs.vision.decode import BadImage, decode_rgb

VERSION = 1
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
_LEAST = 20
_MARKER = "dataset.json"
_PHASES = (("query_images", 0, 2), ("query_images_phase2", 50_000, 3))  # folder, first id, queries an original

_Job = tuple[Path, Path, Path, int, str]  # original, another photo, the query's file, seed, strength


@dataclass
class _Split:
    """Indices of pictures by their part; queries per phase as (original, reference or None)."""

    train: list[int]
    references: list[int]
    originals: tuple[list[int], list[int]]
    strangers: tuple[list[int], list[int]]
    bad: list[str] = field(default_factory=list)


class _Marker(BaseModel):
    """What a finished data set was made of, and how many files of each kind there are."""

    digest: str
    counts: dict[str, int]


def make_dataset(photos: Path, out: Path, seed: int, strength: str = "standard") -> dict[str, int]:
    """Write training images, references, edited queries of two phases and their ground truth; counts of each.

    40% train, 50% are references (nine in ten of them originals of one phase's queries), 10% are originals of
    queries without a match. ``strength`` is that of the queries' edits: standard or hard.
    Raises UsageError for too few pictures or an ``out`` that is within ``photos`` or holds something else.
    """
    if out.resolve().is_relative_to(photos.resolve()):
        raise UsageError(f"--out {out} is within {photos}, whose pictures are read: choose a folder outside of it")
    files = _listed(photos)
    digest = _digest(photos, files, seed, strength)
    finished = _finished(out, digest)
    if finished is not None:
        print(f"{plain(str(out))}: made before from the same pictures, kept", flush=True)
        return finished
    good, bad = _usable(files)
    if len(good) < _LEAST:
        raise UsageError(f"{photos} holds {len(good)} usable pictures ({len(bad)} bad): at least {_LEAST} are needed")
    out.mkdir(parents=True, exist_ok=True)
    split = _split(len(good), seed)
    counts = _write_plain(out, photos, good, split) | _write_queries(out, good, split, seed, strength)
    counts["bad"] = len(bad)
    (out / _MARKER).write_text(_Marker(digest=digest, counts=counts).model_dump_json(indent=1), "utf-8")
    return counts


def _listed(photos: Path) -> list[Path]:
    check_folder(photos, "give a folder that holds pictures")
    return sorted(path for path in photos.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


def _digest(photos: Path, files: list[Path], seed: int, strength: str) -> str:
    named = "" if strength == "standard" else f" {strength}"
    digest = hashlib.sha256(f"{VERSION} {seed}{named}".encode())
    for path in files:
        digest.update(f"{path.relative_to(photos)}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _finished(out: Path, digest: str) -> dict[str, int] | None:
    if not out.exists():
        return None
    marker = out / _MARKER
    if marker.is_file():
        try:
            found = _Marker.model_validate_json(marker.read_bytes())
        except ValidationError as error:
            raise UsageError(f"{marker} is damaged ({first_problem(error)}): remove {out} or choose another") from error
        if found.digest == digest:
            return found.counts
    if any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds another or an unfinished data set: remove it or choose another")
    return None


def _usable(files: list[Path]) -> tuple[list[Path], list[str]]:
    good, bad = [], []
    for path in files:
        try:
            decode_rgb(path.read_bytes(), reduce_to=64)
        except BadImage as error:
            bad.append(f"{path}: {error}")
        except OSError as error:
            bad.append(f"{path}: cannot be read: {error.strerror}")
        else:
            good.append(path)
    for line in bad[:10]:
        print(f"left out: {plain(line)}", flush=True)
    return good, bad


def _split(count: int, seed: int) -> _Split:
    order = random.Random(seed).sample(range(count), count)
    strangers, train = order[: count // 10], order[count // 10 : count // 2]
    references = order[count // 2 :]
    originals = references[: len(references) * 9 // 10]
    return _Split(
        train=train, references=references,
        originals=(originals[::2], originals[1::2]), strangers=(strangers[::2], strangers[1::2]),
    )  # fmt: skip


def _write_plain(out: Path, photos: Path, good: list[Path], split: _Split) -> dict[str, int]:
    with (out / "sources.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "file"))
        for folder, letter, indices in (
            ("train_images", "T", split.train),
            ("reference_images", "R", split.references),
        ):
            (out / folder).mkdir()
            for number, index in enumerate(indices):
                id_ = f"{letter}{number:06d}"
                (out / folder / f"{id_}{good[index].suffix.lower()}").write_bytes(good[index].read_bytes())
                writer.writerow((id_, good[index].relative_to(photos)))
    return {"training_images": len(split.train), "references": len(split.references)}


def _write_queries(out: Path, good: list[Path], split: _Split, seed: int, strength: str) -> dict[str, int]:
    reference_of = {index: f"R{number:06d}" for number, index in enumerate(split.references)}
    jobs: list[_Job] = []
    counts = {}
    for phase, (folder, first, each) in enumerate(_PHASES):
        (out / folder).mkdir()
        rows: list[tuple[str, str]] = []
        for index in [*split.originals[phase], *split.strangers[phase]] * each:
            id_ = f"Q{first + len(rows):05d}"
            rows.append((id_, reference_of.get(index, "")))
            draw = random.Random(f"{seed} {id_}")
            other = good[draw.choice(split.train)]
            jobs.append((good[index], other, out / folder / f"{id_}.jpg", draw.randrange(1 << 31), strength))
        with (out / f"ground_truth_phase{phase + 1}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("query_id", "reference_id"), *rows])
        counts[f"queries_phase{phase + 1}"] = len(rows)
    with ProcessPoolExecutor() as pool:
        for _ in _shown(pool.map(_write_query, jobs, chunksize=8), len(jobs)):
            pass
    return counts


def _write_query(job: _Job) -> None:
    from isc_jobs.datasets.edits import STRENGTHS, edit

    original, other, path, seed, strength = job
    image, background = (decode_rgb(file.read_bytes(), reduce_to=512) for file in (original, other))
    image.thumbnail((512, 512), Image.Resampling.BILINEAR)
    background.thumbnail((512, 512), Image.Resampling.BILINEAR)
    buffer = BytesIO()
    edit(image, background, seed, STRENGTHS[strength]).save(buffer, "JPEG", quality=85)
    path.write_bytes(buffer.getvalue())


def _shown(done: Iterator[None], total: int) -> Iterator[None]:
    """A bar on a terminal, a line every few seconds in a log."""
    bar = tqdm(done, total=total, desc="editing queries", disable=None)
    started = said = time.monotonic()
    for number, item in enumerate(bar, start=1):
        now = time.monotonic()
        if bar.disable and (now - said > 5 or number == total):
            rate = number / (now - started)
            print(f"editing queries  {number}/{total}  {rate:.1f}/s  {(total - number) / rate:.0f} s left", flush=True)
            said = now
        yield item
