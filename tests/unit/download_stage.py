"""Download as the stage runs it, on small sources of noise."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isc_jobs.spec.stage import StageSpec
from isc_jobs.stages.download import body
from isc_jobs.stages.runner import Context
from isc_jobs.store import open_store
from isc_jobs.store.artifacts import Artifact, open_artifact, publish
from isc_jobs.store.listing import write_listing
from isc_jobs.store.source import open_source

# 400 kB a picture of `add_large`: two fill a shard of 1 MB.
BIG: dict[str, Any] = {"max_pixels": 1_000_000, "max_bad_share": 0.2}


def picture(seed: int = 0, kind: str = "PNG", mode: str = "RGB", side: int = 24, **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(data, kind, **options)
    return data.getvalue()


def make_source(root: Path) -> Path:
    """A picture or three in every set."""
    for folder, ids in (
        ("train_images", ["T000000", "T000001"]), ("reference_images", ["R000000", "R000001", "R000002"]),
        ("query_images", ["Q00000", "Q00001"]), ("query_images_phase2", ["Q50000"]),
    ):  # fmt: skip
        (root / folder).mkdir(parents=True)
        for number, id_ in enumerate(ids):
            (root / folder / f"{id_}.png").write_bytes(picture(number))
    return root


def add_large(source: Path) -> Path:
    """Ten training pictures of noise, one of them bad, so that there are several shards."""
    for number in range(10, 20):
        (source / "train_images" / f"T0000{number}.png").write_bytes(picture(number, side=365))
    (source / "train_images/T000012.png").write_bytes(b"")
    return source


def planned_listing(source: Path, path: Path) -> str:
    """The source's listing as the controller makes it; its digest."""
    return write_listing(open_source(str(source)).list(), path) if source.is_dir() else "none"


def context(
    tmp_path: Path, source: Path, attempt: int = 1, part: int = 0, parts: int = 1, digest: str | None = None,
    **data: float,
) -> Context:  # fmt: skip
    """An attempt, or a part of it, with a store and work folders under ``tmp_path``."""
    tmp_path.mkdir(exist_ok=True)
    settings = {"max_bad_share": 0.0, "max_pixels": 10_000, "shard_megabytes": 1} | data
    digest = digest or planned_listing(source, tmp_path / "planned.tsv.gz")
    spec = StageSpec(
        program="download", stage="download", key="k" * 64, run="test", attempt=attempt, store=str(tmp_path / "store"),
        settings={"data": settings}, inputs={}, parameters={"source_digest": digest},
        execution={"source": str(source), "compute": {"download_workers": 3}},
    )  # fmt: skip
    work = tmp_path / f"work-{attempt}-{part}-of-{parts}"
    return Context(spec, open_store(spec.store), work, part=part, parts=parts)


def run(ctx: Context) -> dict[str, Any] | None:
    """Run the body and publish what it made, if it did."""
    summary = body(ctx)
    if summary is not None:
        publish(ctx.store, ctx.ref, ctx.out, run=ctx.spec.run, attempt=ctx.spec.attempt, summary=summary,
                provenance={}, seconds=0.0, uploaded=ctx.uploaded)  # fmt: skip
    return summary


def output(ctx: Context) -> Artifact:
    """What was published."""
    return open_artifact(ctx.store, ctx.ref, ctx.cache)


def contents(ctx: Context) -> dict[str, bytes]:
    """All published files, verified."""
    found = output(ctx)
    return {name: found.path(name).read_bytes() for name in found.names()}


class Killed(Exception):
    """Stands for the end of the process."""


def killed_at(ctx: Context, step: int) -> None:
    """Run the body until it has done ``step`` steps."""

    def progress(done: int, _total: int, **_: Any) -> None:
        if done >= step:
            raise Killed

    ctx.progress = progress
    with pytest.raises(Killed):
        body(ctx)
