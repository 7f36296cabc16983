"""Targets: objects of the artifact store, and files that attempts leave."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import mutators
from contract import Broken, Target

from isc_jobs.controller.attempts import read_progress, read_spec
from isc_jobs.controller.lease import Lease, is_held
from isc_jobs.controller.local import _termination
from isc_jobs.controller.pods import _said
from isc_jobs.controller.status import kept_log
from isc_jobs.datasets.make import _finished
from isc_jobs.spec.errors import DataError, TemporaryError, UsageError
from isc_jobs.spec.pipeline import Stage, build_pipeline
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import InputRef
from isc_jobs.stages.pieces import Pieces
from isc_jobs.stages.runner import Context
from isc_jobs.store import ObjectInfo, Store, open_store
from isc_jobs.store.artifacts import open_artifact, read_commit, verify_commit
from isc_jobs.store.checkpoints import load_latest
from isc_jobs.store.listing import read_listing, write_listing

REF = InputRef(stage="extract", key="k" * 64)
DIGEST = hashlib.sha256(b"bytes").hexdigest()
COMMIT = {
    "stage": REF.stage, "key": REF.key, "run": "mine", "attempt": 1,
    "files": [{"name": "a/rows.h5", "size": 5, "sha256": DIGEST}, {"name": "b.csv", "size": 5, "sha256": DIGEST}],
    "summary": {"uap": 0.5}, "provenance": {"torch": "2"}, "seconds": 1.5, "created": "2026-01-01T00:00:00.000+00:00",
}  # fmt: skip


class Elsewhere:
    """A store that is no folder of this machine, as far as its readers see: files are copied to a cache."""

    def __init__(self, store: Store) -> None:
        self.uri, self.stat, self.get, self.put = store.uri, store.stat, store.get, store.put
        self.upload, self.download, self.list = store.upload, store.download, store.list
        self.delete, self.link = store.delete, store.link


def _store(folder: Path) -> Store:
    return open_store(str(folder / "store"))


def _commit(data: bytes, folder: Path) -> None:
    store = _store(folder)
    where = f"artifacts/{REF.stage}/{REF.key}"
    for name in ("a/rows.h5", "b.csv"):
        store.put(f"{where}/{name}", b"bytes")
    store.put(f"{where}/commit.json", data)
    commit = read_commit(store, REF)
    assert commit is not None
    verify_commit(store, commit)
    for reader, notes in ((store, None), (Elsewhere(store), None), (Elsewhere(store), folder / "notes")):
        artifact = open_artifact(reader, REF, folder / "cache", notes)
        for name in artifact.names():
            path = artifact.path(name)
            if not path.resolve().is_relative_to(folder.resolve()):
                raise Broken(f"{path} is no file of the store or cache")


def _marker(data: bytes, folder: Path) -> object:
    store = Elsewhere(_store(folder))
    where = "checkpoints/k/step-000000007"
    store.put(f"{where}/state.pt", b"bytes")
    store.put(f"{where}/marker.json", data)
    (folder / "resume").mkdir()
    return load_latest(store, "k", folder / "resume")


@cache
def _download() -> Stage:
    """Settings are long to read."""
    return build_pipeline(load_settings("demo"), "/photos", "0" * 64)[0]


def _piece(data: bytes, folder: Path) -> object:
    store = _store(folder)
    spec = _download().spec("mine", 1, store.uri)
    store.put(f"checkpoints/{spec.key}/train-00000.json", data)
    for name in ("shards/train-00000.tar", "shards/train-00000.csv"):
        store.put(f"artifacts/{spec.stage}/{spec.key}/{name}", b"bytes")
    ctx = Context(spec, store, folder / "work")
    pieces = Pieces(ctx, ["train-00000"], final=True)
    pieces.recall("train-00000")
    found = pieces.all()
    return found and [pieces.fetch(piece) for piece in found]


def _listing(data: bytes, folder: Path) -> object:
    path = folder / "listing.tsv.gz"
    path.write_bytes(gzip.compress(data, 1))
    return list(read_listing(path))


def _listing_bytes(data: bytes, folder: Path) -> object:
    path = folder / "listing.tsv.gz"
    path.write_bytes(data)
    return list(read_listing(path))


def _listing_seed() -> list[bytes]:
    infos = [ObjectInfo(f"train_images/T{n}.jpg", 10 + n, f'"{n}"') for n in range(3)]
    return [b"".join(f"{info.key}\t{info.size}\t{info.etag}\n".encode() for info in infos)]


def _progress(data: bytes, folder: Path) -> object:
    store = _store(folder)
    store.put("runs/mine/extract/attempt-1/progress-0.json", data)
    store.put("runs/mine/extract/attempt-1/progress-1.json", _PROGRESS)
    found, _ = read_progress(store, "runs/mine/extract/attempt-1")
    return found and f"{found['step']}/{found['total']}, {found['eta_s']:.0f} s left"


def _lease(data: bytes, folder: Path) -> object:
    store = _store(folder)
    store.put("runs/mine/lease.json", data)
    is_held(store, "mine", 0.0)
    return Lease(store, "mine", now=lambda: 1e9, sleep=lambda _: None).acquire()


def _log(data: bytes, folder: Path) -> object:
    store = _store(folder)
    store.put("runs/mine/extract/attempt-1/log-0.txt.gz", data)
    return kept_log(store, "mine", "extract", 1, 0)


def _claimed(data: bytes, folder: Path) -> object:
    store = _store(folder)
    store.put("runs/mine/extract/attempt-1/spec.json", data)
    return read_spec(store, "mine", "extract", 1)


def _last_words(data: bytes, folder: Path) -> object:
    (folder / "termination-0.json").write_bytes(data)
    _termination(folder, 1)
    return _said({"message": data.decode("utf-8", "replace")})


def _dataset(data: bytes, folder: Path) -> object:
    (folder / "out").mkdir()
    (folder / "out" / "dataset.json").write_bytes(data)
    return _finished(folder / "out", "d")


def _keys(data: bytes, folder: Path) -> None:
    """Every operation of a store, by keys, a line each: none leaves the folder."""
    store = _store(folder)
    (folder / "file").write_bytes(b"bytes")
    outside = folder / "secret.txt"
    outside.write_bytes(b"secret")
    for key in data.decode("utf-8", "surrogateescape").split("\n")[:4]:
        if any(info.size for info in _listed(store, key)):
            raise Broken(f"{key!r} lists what is outside")
        for use in (store.stat, store.get, store.delete):
            _tried(use, key)
        _tried(store.download, key, folder / "file")
        _tried(store.upload, key, folder / "file")
        _tried(store.put, key, b"")
        _tried(store.delete, key)
    if outside.read_bytes() != b"secret":
        raise Broken("a key leaves the store")


def _listed(store: Store, key: str) -> Iterator[ObjectInfo]:
    try:
        yield from store.list(key)
    except (UsageError, DataError, TemporaryError):
        return


def _tried(use: Any, *arguments: object) -> None:
    try:
        use(*arguments)
    except (UsageError, DataError, TemporaryError):
        return


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _gzipped_listing() -> list[bytes]:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        write_listing([ObjectInfo("train_images/a.jpg", 3, "e")], Path(file.name))
        return [Path(file.name).read_bytes()]


_PROGRESS = _json({"step": 1, "total": 9, "rate": 0.5, "eta_s": 16.0, "unix_time": 1.0, "loss": 0.5})
_PIECE = _json(
    {
        "attempt": "mine/1",
        "files": [{"name": f"shards/train-00000.{end}", "size": 5, "sha256": DIGEST} for end in ("tar", "csv")],
        "result": {"bad": [["train_images/a.jpg", "empty file"]]},
    }
)
_LEASE = _json({"host": "h/b", "pid": 1, "epoch": 3, "expires": 2e9})
SPEC = build_pipeline(load_settings("demo"), "/photos", "0" * 64)[0].spec("mine", 1, "/store")

TARGETS = (
    Target(name="commit", run=_commit, seeds=lambda: [_json(COMMIT)], mutate=mutators.of_json, errors=(DataError,),
           names="extract"),
    Target(name="checkpoint-marker", run=_marker, seeds=lambda: [_json({"state.pt": DIGEST})],
           mutate=mutators.of_json, errors=(DataError,)),
    Target(name="piece", run=_piece, seeds=lambda: [_PIECE], mutate=mutators.of_json, errors=(DataError,)),
    Target(name="listing", run=_listing, seeds=_listing_seed, mutate=mutators.of_lines, errors=(DataError,),
           names="listing"),
    Target(name="listing-gzip", run=_listing_bytes, seeds=_gzipped_listing, errors=(DataError,), names="listing"),
    Target(name="progress", run=_progress, seeds=lambda: [_PROGRESS], mutate=mutators.of_json, errors=(DataError,)),
    Target(name="lease", run=_lease, seeds=lambda: [_LEASE], mutate=mutators.of_json,
           errors=(DataError, TemporaryError), names="mine"),
    Target(name="log", run=_log, seeds=lambda: [gzip.compress(b"a line\n")], errors=(DataError,), names="log-0"),
    Target(name="claimed-spec", run=_claimed, seeds=lambda: [SPEC.model_dump_json().encode()],
           mutate=mutators.of_json, errors=(DataError,), names="spec.json"),
    Target(name="last-words", run=_last_words, seeds=lambda: [_json({"exit_code": 65, "reason": "bad"})],
           mutate=mutators.of_json, errors=()),
    Target(name="dataset-marker", run=_dataset, seeds=lambda: [_json({"digest": "d", "counts": {"bad": 0}})],
           mutate=mutators.of_json, errors=(UsageError,), names="out"),
    Target(name="store-keys", run=_keys, mutate=mutators.of_lines,
           seeds=lambda: [b"runs/mine/manifest.json\nartifacts/a/b", b"../secret.txt", b"runs/../../secret.txt"]),
)  # fmt: skip
