"""Targets: pictures, shards and their indexes, sources, CSV and HDF5 files, kept descriptors."""

import io
import json
import os
import tarfile
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

import h5py
import mutators
import numpy as np
from contract import Broken, Target
from odd_pictures import odd_pictures
from PIL import Image

from isc_jobs.matching.chunks import Chunks
from isc_jobs.matching.index import read_head
from isc_jobs.matching.pictures import list_pictures
from isc_jobs.retrieval.metrics import evaluate_files
from isc_jobs.retrieval.submission import read_ground_truth
from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.stages.ground_truth import parse_ground_truth
from isc_jobs.stages.sharding import Plan
from isc_jobs.store import ObjectInfo
from isc_jobs.store.listing import read_listing, write_listing
from isc_jobs.vision.decode import BadImage, Encoded, check_picture, decode_rgb
from isc_jobs.vision.shards import Picture, ShardSet, read_index, write_shard

MAX_PIXELS = 4_000_000
_CHEAP = 10_000  # bytes of a seed picture
_TRUTH = b"query_id,reference_id\nQ00001,R000001\nQ00002,R000002\nQ00003,\n"
_MATCHES = b"query_id,reference_id,score\nQ00001,R000001,-0.25\nQ00002,R000009,-0.5\nQ00003,R000002,1e-3\n"


class Folder:
    """A stage's output, as files of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """As Artifact has it: a name that is not listed is refused."""
        if name not in {"manifest.json", "a.tar", "a.csv"}:
            raise DataError(f"output holds no {name[:100]!r}")
        return self.root / name


def _picture(data: bytes, _folder: Path) -> None:
    """A check says what a decoding says, and reduced decodings raise nothing else."""
    verdicts = []
    for use in (check_picture, decode_rgb):
        try:
            use(data, MAX_PIXELS)
            verdicts.append("")
        except BadImage as error:
            verdicts.append(str(error))
    if verdicts[0] != verdicts[1]:
        raise Broken(f"a check says {verdicts[0]!r}, a decoding {verdicts[1]!r}")
    encoded = Encoded(data, MAX_PIXELS)
    encoded.pixels(4)
    encoded.crop((0, 0, 1, 1), 8)


def _index(data: bytes, folder: Path) -> object:
    path = folder / "a.csv"
    path.write_bytes(data)
    return read_index(path)


def _shards(data: bytes, folder: Path, name: str) -> None:
    """All pictures of a set of which one file is ``data``."""
    write_shard(folder / "a.tar", _PICTURES)
    (folder / "manifest.json").write_bytes(_MANIFEST)
    (folder / name).write_bytes(data)
    pictures = ShardSet(Folder(folder), "train")
    try:
        for place in range(min(len(pictures), 10)):
            pictures.read(place)
    finally:
        for descriptor in pictures._descriptors.values():
            os.close(descriptor)


def _source(data: bytes, folder: Path) -> object:
    """Keys of a source, a line each, as they come by a listing."""
    keys = [key for key in data.decode("utf-8", "surrogateescape").split("\n") if len(key) <= 1024]  # as S3 has it
    path = folder / "listing.tsv.gz"
    write_listing((ObjectInfo(key, 10 + place, "e") for place, key in enumerate(keys)), path)
    read = list(read_listing(path))
    if [info.key for info in read] != keys:
        raise Broken("a key comes out of a listing otherwise than it went in")
    with closing(Plan(read, "photos", 1 << 20, folder / "plan.sqlite")) as plan:
        for shard in plan.shards:
            names = [shard.name, *(key.rpartition("/")[2] for key in plan.keys(shard))]
            if any(name.startswith(".") or not name.isascii() or {"/", "\0", "\n"} & set(name) for name in names):
                raise Broken(f"unsafe names in a shard: {names}"[:300])
        return plan.total


def _pictures_of_a_folder(data: bytes, folder: Path) -> object:
    """File names, a line each."""
    root = folder / "photos"
    root.mkdir()
    for name in data.replace(b"/", b"").split(b"\n")[:20]:
        if name.strip(b".") and b"\0" not in name and len(name) < 250:
            Path(str(root), name.decode("utf-8", "surrogateescape")).write_bytes(b"x")
    return [picture.key for picture in list_pictures(root).pictures]


def _truth_on_its_way(data: bytes, _folder: Path) -> object:
    return parse_ground_truth("ground_truth_phase1.csv", data)


def _truth(data: bytes, folder: Path) -> object:
    path = folder / "truth.csv"
    path.write_bytes(data)
    return read_ground_truth(path)


_HEAD = {
    "format": 1, "kind": "exact", "count": 3, "dimensions": 256, "generation": 1, "weights": "weights.pth.tar",
    "weights_sha256": "0" * 64, "model": {"arch": "a", "input_size": 32}, "probes": 0, "recall": None,
}  # fmt: skip


def _index_head(data: bytes, folder: Path) -> None:
    """The part of an index that is ours to read; its other files are faiss's."""
    (folder / "index.json").write_bytes(data)
    read_head(folder)


def _matches(data: bytes, folder: Path) -> object:
    (folder / "truth.csv").write_bytes(_TRUTH)
    (folder / "found.csv").write_bytes(data)
    return evaluate_files(folder / "found.csv", folder / "truth.csv")


def _descriptors(data: bytes, folder: Path) -> object:
    (folder / "truth.csv").write_bytes(_TRUTH)
    (folder / "found.h5").write_bytes(data)
    return evaluate_files(folder / "found.h5", folder / "truth.csv")


def _kept(data: bytes, folder: Path) -> object:
    """Damaged files are named, removed and made again."""
    (folder / "x.npz").write_bytes(data)
    chunks = Chunks(folder)
    keys = [key for key in ("0" * 32, "1" * 32) if chunks.has_row(key)]
    out = np.zeros((len(keys), 4), np.float32)
    if keys:
        chunks.gather(keys, out)
    return out


def _picture_seeds() -> list[bytes]:
    return [data for data in odd_pictures().values() if len(data) < _CHEAP] + _foreign()


def _foreign() -> list[bytes]:
    """Formats that are refused, but begin to be read."""
    found = []
    for kind in (
        "EPS",
        "ICO",
        "ICNS",
        "TGA",
        "PCX",
        "SGI",
        "SPIDER",
        "MSP",
        "XBM",
        "DDS",
        "PDF",
        "IM",
        "JPEG2000",
        "AVIF",
    ):
        data = io.BytesIO()
        image = Image.new("1" if kind in {"MSP", "XBM"} else "F" if kind == "SPIDER" else "RGB", (64, 64))
        image.save(data, kind)
        found.append(data.getvalue())
    return found


@cache
def descriptor_file(*, compressed: bool = False, text_ids: bool = False) -> bytes:
    """A small submission."""
    rng = np.random.default_rng(0)
    with tempfile.NamedTemporaryFile(suffix=".h5") as file:
        with h5py.File(file.name, "w") as out:
            for name, letter, width in (("query", "Q", 5), ("reference", "R", 6)):
                rows = rng.normal(size=(4, 8)).astype(np.float32)
                out.create_dataset(name, data=rows, compression="gzip" if compressed else None)
                ids = [f"{letter}{number:0{width}d}" for number in range(4)]
                out[f"{name}_ids"] = ids if text_ids else np.array(ids, "S")
        return Path(file.name).read_bytes()


@cache
def _npz() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        Chunks(Path(folder)).keep(["0" * 32], np.ones((1, 4), np.float32), {"1" * 32: "empty file"})
        [path] = Path(folder).glob("*.npz")
        return [path.read_bytes()]


@cache
def _tar() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder) / "a.tar", _PICTURES)
        return (Path(folder) / "a.tar").read_bytes()


@cache
def _rows() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder) / "a.tar", _PICTURES)
        return (Path(folder) / "a.csv").read_bytes()


_PICTURES = [Picture(f"T{number:06d}", "jpg", bytes([number]) * 700, 10, 20) for number in range(3)]
_MANIFEST = json.dumps({"sets": {"train": {"shards": ["a.tar"], "count": 3}}, "bad": 0}).encode()
_KEYS = b"train_images/T000000.jpg\nreference_images/R1.png\nquery_images/Q.gif\nground_truth_phase1.csv\nx/y/z"
_BLOCK = tarfile.BLOCKSIZE

TARGETS = (
    Target(name="picture", run=_picture, seeds=_picture_seeds, errors=(BadImage,), megabytes=300),
    Target(name="index", run=_index, seeds=lambda: [_rows()], mutate=mutators.of_csv, errors=(DataError,),
           names="a.csv"),
    Target(name="shard-index", run=lambda data, folder: _shards(data, folder, "a.csv"), seeds=lambda: [_rows()],
           mutate=mutators.of_csv, errors=(DataError,)),
    Target(name="shard", run=lambda data, folder: _shards(data, folder, "a.tar"), seeds=lambda: [_tar()],
           errors=(DataError,)),
    Target(name="shard-manifest", run=lambda data, folder: _shards(data, folder, "manifest.json"),
           seeds=lambda: [_MANIFEST], mutate=mutators.of_json, errors=(DataError,)),
    Target(name="source", run=_source, seeds=lambda: [_KEYS], mutate=mutators.of_lines, names="photos"),
    Target(name="folder", run=_pictures_of_a_folder, seeds=lambda: [b"a.jpg\nb.PNG\n..jpg\n.jpg"],
           mutate=mutators.of_lines, errors=(UsageError,), names="photos"),
    Target(name="ground-truth", run=_truth_on_its_way, seeds=lambda: [_TRUTH], mutate=mutators.of_csv,
           errors=(DataError,), names="ground_truth_phase1.csv"),
    Target(name="truth", run=_truth, seeds=lambda: [_TRUTH], mutate=mutators.of_csv, names="truth.csv"),
    Target(name="matches", run=_matches, seeds=lambda: [_MATCHES], mutate=mutators.of_csv, names="found.csv"),
    Target(name="descriptors", run=_descriptors, names=".h5", errors=(DataError,),
           seeds=lambda: [descriptor_file(), descriptor_file(compressed=True), descriptor_file(text_ids=True)]),
    Target(name="index-head", run=_index_head, seeds=lambda: [json.dumps(_HEAD).encode()], names="index"),
    Target(name="kept-descriptors", run=_kept, seeds=_npz, errors=()),
)  # fmt: skip
