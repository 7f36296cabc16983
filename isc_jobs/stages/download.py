"""Download: a source of pictures becomes verified shards, with an index and a manifest."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from isc_jobs.spec.errors import DataError, Terminated, UsageError
from isc_jobs.spec.settings import Data
from isc_jobs.stages.ground_truth import copy_ground_truth
from isc_jobs.stages.runner import Context, run_stage
from isc_jobs.store.artifacts import file_sha256
from isc_jobs.store.port import NotFound
from isc_jobs.store.source import FOLDERS, Source, open_source
from isc_jobs.vision.decode import BadImage, decode_rgb
from isc_jobs.vision.shards import Picture, read_index, write_shard

IMAGES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "jp2", "avif"}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def body(ctx: Context) -> dict[str, Any]:
    """Pack every set, copy the ground truth, list bad pictures; raises DataError if too many are bad."""
    source = open_source(ctx.spec.execution["source"], anonymous=bool(ctx.spec.execution.get("anonymous")))
    sets, ignored = list_sets(source)
    ctx.log(f"{sum(map(len, sets.values()))} pictures, {ignored} other files ignored")
    packer = _Packer(ctx, source, sum(len(keys) for keys in sets.values()))
    manifest: dict[str, Any] = {"sets": {}}
    ids: dict[str, set[str]] = {}
    for name, keys in sets.items():
        shards, ids[name] = packer.pack(name, keys)
        manifest["sets"][name] = {"shards": shards, "count": len(ids[name])}
    packer.write_bad()
    manifest["bad"] = len(packer.bad)
    (ctx.out / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    # Ground truth never names training pictures, whatever their ids.
    lost = {key for key, _ in packer.bad if FOLDERS[key.split("/")[0]] != "train"}
    copy_ground_truth(source, ids, lost, ctx.out)
    return {"bad": len(packer.bad), "ignored": ignored} | {
        name: entry["count"] for name, entry in manifest["sets"].items()
    }


def list_sets(source: Source) -> tuple[dict[str, list[str]], int]:
    """Keys of the pictures of every set, sorted by id, and the number of other files in the sets' folders.

    Raises UsageError or DataError for a wrong layout.
    """
    ignored = 0
    sets: dict[str, dict[str, str]] = {}
    for info in source.list():
        path = PurePosixPath(info.key)
        if path.parts[0] not in FOLDERS or len(path.parts) == 1:
            continue
        hidden = path.name.startswith(".")
        if hidden or len(path.parts) != 2 or path.suffix.lower().lstrip(".") not in IMAGES:
            ignored += 1
            continue
        if not _ID.fullmatch(path.stem):
            raise DataError(f"{source.uri}: {info.key!r}: an id may hold letters, digits and . _ - and 64 characters")
        members = sets.setdefault(FOLDERS[path.parts[0]], {})
        if path.stem in members:
            raise DataError(f"{source.uri}: id {path.stem} is there twice: {members[path.stem]} and {info.key}")
        members[path.stem] = info.key
    if not {"train", "reference"} & set(sets):
        raise UsageError(
            f"source {source.uri} holds no pictures in train_images/ or reference_images/: "
            "make such a data set with `isc-jobs dataset make`"
        )
    return {name: [keys[id_] for id_ in sorted(keys)] for name, keys in sorted(sets.items())}, ignored


class _Packer:
    """Packs keys into shards, in order; shards of an attempt that was killed are taken over."""

    def __init__(self, ctx: Context, source: Source, total: int) -> None:
        self.bad: list[tuple[str, str]] = []
        self._ctx, self._source, self._total, self._done = ctx, source, total, 0
        self._data = Data.model_validate(ctx.spec.settings["data"])
        (ctx.out / "shards").mkdir(exist_ok=True)

    def pack(self, name: str, keys: list[str]) -> tuple[list[str], set[str]]:
        """Names of the shards, ids within."""
        shards: list[str] = []
        ids: set[str] = set()
        position = 0
        while position < len(keys):
            shard = f"shards/{name}-{len(shards):05d}.tar"
            taken = self._resume(shard, keys[position:]) or self._write(shard, keys[position:])
            ids |= {row.id for row in read_index((self._ctx.out / shard).with_suffix(".csv"))}
            shards.append(shard)
            position += taken
            self.check_share()
        return shards, ids

    def check_share(self) -> None:
        """Raises DataError if the share of bad pictures is above the setting."""
        if len(self.bad) > self._data.max_bad_share * self._total:
            shown = "; ".join(f"{key}: {reason}" for key, reason in self.bad[:3])
            raise DataError(
                f"{len(self.bad)} of {self._total} pictures are bad, data.max_bad_share allows "
                f"{self._data.max_bad_share:.2%}: {shown}"
            )

    def write_bad(self) -> None:
        """bad_images.csv."""
        with (self._ctx.out / "bad_images.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("key", "reason"), *self.bad])

    def _write(self, shard: str, keys: list[str]) -> int:
        """Write one shard and keep it in the store; how many keys it took."""
        path = self._ctx.out / shard
        taken: list[str] = []
        bad_before = len(self.bad)
        write_shard(path, self._fill(keys, taken))
        kept = {"taken": len(taken), "last": taken[-1], "bad": self.bad[bad_before:],
                "tar": file_sha256(path), "csv": file_sha256(path.with_suffix(".csv"))}  # fmt: skip
        self._ctx.store.upload(self._kept(shard), path)
        self._ctx.store.upload(self._kept(shard) + ".csv", path.with_suffix(".csv"))
        self._ctx.store.put(self._kept(shard) + ".json", json.dumps(kept).encode())
        return len(taken)

    def _fill(self, keys: list[str], taken: list[str]) -> Iterator[Picture]:
        size = 0
        for key, picture in self._verified(keys):
            taken.append(key)
            self._step(1)
            if isinstance(picture, BadImage):
                self.bad.append((key, str(picture)))
                continue
            yield picture
            size += len(picture.data)
            if size >= self._data.shard_megabytes << 20:
                return

    def _verified(self, keys: list[str]) -> Iterator[tuple[str, Picture | BadImage]]:
        workers = self._ctx.spec.execution["compute"]["download_workers"]
        waiting = iter(keys)
        with ThreadPoolExecutor(workers) as pool:
            window = [(key, pool.submit(self._verify, key)) for key in islice(waiting, 4 * workers)]
            while window:
                key, future = window.pop(0)
                window += [(more, pool.submit(self._verify, more)) for more in islice(waiting, 1)]
                yield key, future.result()

    def _verify(self, key: str) -> Picture | BadImage:
        data = self._source.read(key)
        try:
            image = decode_rgb(data, self._data.max_pixels)
        except BadImage as bad:
            return bad
        path = PurePosixPath(key)
        return Picture(path.stem, path.suffix.lower().lstrip("."), data, image.width, image.height)

    def _resume(self, shard: str, keys: list[str]) -> int:
        """Take a finished shard of an earlier attempt; how many keys it took, 0 if there is none."""
        path = self._ctx.out / shard
        try:
            kept = json.loads(self._ctx.store.get(self._kept(shard) + ".json")[0])
            taken, bad = int(kept["taken"]), [(str(key), str(reason)) for key, reason in kept["bad"]]
            self._ctx.store.download(self._kept(shard), path)
            self._ctx.store.download(self._kept(shard) + ".csv", path.with_suffix(".csv"))
            same = kept["tar"] == file_sha256(path) and kept["csv"] == file_sha256(path.with_suffix(".csv"))
            same = same and keys[taken - 1] == kept["last"]
        except (NotFound, ValueError, LookupError, TypeError):  # none, or damaged: packed anew
            return 0
        if not same:
            return 0
        self.bad += bad
        self._step(taken)
        return taken

    def _kept(self, shard: str) -> str:
        return f"checkpoints/{self._ctx.spec.key}/{Path(shard).name}"

    def _step(self, count: int) -> None:
        if self._ctx.stop_requested:
            raise Terminated("download was told to stop: finished shards are kept, run it again to go on")
        self._done += count
        self._ctx.progress(self._done, self._total, bad=len(self.bad))


if __name__ == "__main__":
    sys.exit(run_stage("download", body))
