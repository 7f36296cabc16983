"""Download: a source of pictures becomes verified shards, with an index and a manifest."""

import csv
import json
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from isc_jobs.spec.errors import DataError
from isc_jobs.spec.settings import Data
from isc_jobs.stages.ground_truth import Row, read_ground_truth, write_ground_truth
from isc_jobs.stages.pieces import Piece, Pieces
from isc_jobs.stages.runner import Context, run_stage
from isc_jobs.stages.sharding import Plan, Shard, picture_id
from isc_jobs.store.listing import fetch_listing, read_listing, write_listing
from isc_jobs.store.port import ObjectInfo
from isc_jobs.store.source import Source, open_source
from isc_jobs.vision.decode import BadImage, check_picture
from isc_jobs.vision.shards import Picture, write_shard

_SHOWN_BAD = 5
_CHUNK = 8  # pictures that a thread reads and verifies at a time


def body(ctx: Context) -> dict[str, Any] | None:
    """Pack this part's shards; the last part lists shards and bad pictures and copies the ground truth.

    Raises DataError if too many pictures are bad.
    """
    source = open_source(ctx.spec.execution["source"], anonymous=bool(ctx.spec.execution.get("anonymous")))
    data = ctx.spec.setting("data", Data)
    shard_bytes = data.shard_megabytes << 20
    with closing(Plan(_listing(ctx, source), source.uri, shard_bytes, ctx.work / "plan.sqlite")) as plan:
        truths = read_ground_truth(source, plan)
        ctx.log(f"{plan.total} pictures, {plan.ignored} other files ignored")
        pieces = Pieces(ctx, [shard.name for shard in plan.shards], final=True)
        _Packer(ctx, source, data, plan, pieces).pack()
        packed = pieces.all()
        return None if packed is None else _merge(ctx, data, plan, truths, packed)


def check_share(bad: list[tuple[str, str]], total: int, max_bad_share: float) -> None:
    """Raises DataError if the share of bad pictures (key, reason) is above the setting."""
    if len(bad) > max_bad_share * total:
        shown = "; ".join(f"{key}: {reason}" for key, reason in bad[:3])
        raise DataError(
            f"{len(bad)} of {total} pictures are bad, data.max_bad_share allows {max_bad_share:.2%}: {shown}"
        )


def _listing(ctx: Context, source: Source) -> Iterator[ObjectInfo]:
    """The source's listing as the controller left it, or made anew; raises DataError if it is another by now."""
    planned, path = ctx.spec.parameters["source_digest"], ctx.work / "listing.tsv.gz"
    if not fetch_listing(ctx.store, planned, path):
        found = write_listing(source.list(), path)
        if found != planned:
            raise DataError(
                f"source {source.uri} has changed since the run was planned: its listing is {found[:12]}…, planned "
                f"was {planned[:12]}…; start the run again with run-all"
            )
    return read_listing(path)


def _merge(
    ctx: Context, data: Data, plan: Plan, truths: dict[str, list[Row]], packed: list[Piece]
) -> dict[str, Any]:  # fmt: skip
    """Write what stands beside the shards; the summary."""
    sets: dict[str, dict[str, Any]] = {name: {"shards": [], "count": 0} for name in plan.sets}
    lost: dict[str, set[str]] = {name: set() for name in plan.sets}
    bad: list[tuple[str, str]] = []
    for shard, piece in zip(plan.shards, packed, strict=True):
        sets[shard.set]["shards"].append(f"shards/{shard.name}.tar")
        sets[shard.set]["count"] += shard.count - len(piece.result["bad"])
        lost[shard.set] |= {picture_id(key) for key, _ in piece.result["bad"]}
        bad += [(key, reason) for key, reason in piece.result["bad"]]
    check_share(bad, plan.total, data.max_bad_share)
    for key, reason in bad[:_SHOWN_BAD]:
        ctx.log(f"left out: {key}: {reason}")
    if len(bad) > _SHOWN_BAD:
        ctx.log(f"left out: {len(bad):,} pictures in all, bad_images.csv names them")
    with (ctx.out / "bad_images.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("key", "reason"), *bad])
    manifest = {"sets": sets, "bad": len(bad)}
    (ctx.out / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    write_ground_truth(truths, lost, ctx.out)
    ctx.uploaded += [entry for piece in packed for entry in piece.files]
    return {"bad": len(bad), "ignored": plan.ignored} | {name: entry["count"] for name, entry in sets.items()}


class _Packer:
    """Packs the shards of this part; those that an earlier attempt kept are taken over."""

    def __init__(self, ctx: Context, source: Source, data: Data, plan: Plan, pieces: Pieces) -> None:
        self._ctx, self._source, self._data, self._plan, self._pieces = ctx, source, data, plan, pieces
        self._shards = [shard for shard in plan.shards if shard.name in pieces.mine]
        self._total, self._done = sum(shard.count for shard in self._shards), 0
        self._bad: list[tuple[str, str]] = []

    def pack(self) -> None:
        """One pool verifies the pictures of all shards, and a shard is uploaded while the next is filled."""
        missing = [shard for shard in self._shards if not self._recall(shard)]
        keys = (key for shard in missing for key in self._plan.keys(shard))
        with closing(self._verified(keys)) as pictures, ThreadPoolExecutor(1) as keeper:
            keeping: deque[Future[Piece]] = deque()
            for shard in missing:
                bad = self._write(shard, islice(pictures, shard.count))
                while keeping:
                    keeping.popleft().result()
                keeping.append(keeper.submit(self._keep, shard, bad))
                check_share(self._bad, self._plan.total, self._data.max_bad_share)
            for kept in keeping:
                kept.result()

    def _recall(self, shard: Shard) -> bool:
        piece = self._pieces.recall(shard.name)
        if piece is None:
            return False
        self._bad += [(key, reason) for key, reason in piece.result["bad"]]
        self._step(shard.count)
        return True

    def _write(self, shard: Shard, pictures: Iterable[tuple[str, Picture | BadImage]]) -> list[tuple[str, str]]:
        """Fill the local file; the bad pictures met."""
        before = len(self._bad)
        write_shard(self._pieces.path(f"shards/{shard.name}.tar"), self._good(pictures))
        return self._bad[before:]

    def _keep(self, shard: Shard, bad: list[tuple[str, str]]) -> Piece:
        files = [f"shards/{shard.name}.{extension}" for extension in ("tar", "csv")]
        return self._pieces.keep(shard.name, files, {"bad": bad})

    def _good(self, pictures: Iterable[tuple[str, Picture | BadImage]]) -> Iterator[Picture]:
        for key, picture in pictures:
            if isinstance(picture, BadImage):
                self._bad.append((key, str(picture)))
                self._step(1)
            else:
                self._step(1)
                yield picture

    def _verified(self, keys: Iterable[str]) -> Generator[tuple[str, Picture | BadImage]]:
        """Each picture in the keys' order, read and decoded by threads that are a window ahead."""
        workers = self._ctx.spec.execution["compute"]["download_workers"]
        pool, chunks = ThreadPoolExecutor(workers), _in_chunks(keys)
        try:
            waiting = (pool.submit(self._verify_all, chunk) for chunk in chunks)
            window = deque(islice(waiting, 2 * workers))
            while window:
                verified = window.popleft().result()
                window.extend(islice(waiting, 1))
                yield from verified
        finally:
            pool.shutdown(cancel_futures=True)

    def _verify_all(self, keys: Iterable[str]) -> list[tuple[str, Picture | BadImage]]:
        return [(key, self._verify(key)) for key in keys]

    def _verify(self, key: str) -> Picture | BadImage:
        data = self._source.read(key)
        try:
            width, height = check_picture(data, self._data.max_pixels)
        except BadImage as bad:
            return bad
        path = PurePosixPath(key)
        return Picture(path.stem, path.suffix.lower().lstrip("."), data, width, height)

    def _step(self, count: int) -> None:
        self._done += count
        self._ctx.progress(self._done, self._total, bad=len(self._bad))


def _in_chunks(keys: Iterable[str]) -> Iterator[list[str]]:
    """Lists of a few: to hand each picture from thread to thread alone would cost a tenth of the work on it."""
    remaining = iter(keys)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk


if __name__ == "__main__":
    sys.exit(run_stage("download", body))
