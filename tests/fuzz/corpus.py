"""Bad inputs by hand, and those that fuzzing found: target, bytes, and what is said."""

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import bombs
import numpy as np
import store_targets
from settings_targets import manifests

from isc_jobs.spec.errors import ExitCode

_NESTED = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
_WIDE = b"Q00001," + b"x" * 200_000 + b"\n"
USAGE, DATA = ExitCode.USAGE, ExitCode.DATA


@dataclass(frozen=True)
class Case:
    """An input and its error; ``said``: a part of the sentence. Without a code it is taken, or passed over."""

    target: str
    name: str
    make: Callable[[], bytes]
    code: ExitCode | None
    said: str = ""


def _json(value: object) -> Callable[[], bytes]:
    return lambda: json.dumps(value).encode()


def _truth(*lines: bytes) -> Callable[[], bytes]:
    return lambda: b"query_id,reference_id\n" + b"\n".join(lines) + b"\n"


def _matches(*lines: bytes) -> Callable[[], bytes]:
    return lambda: b"query_id,reference_id,score\n" + b"\n".join(lines) + b"\n"


def _commit(**changes: Any) -> Callable[[], bytes]:
    return _json(store_targets.COMMIT | changes)


def _file(name: str) -> Callable[[], bytes]:
    return _commit(files=[{"name": name, "size": 5, "sha256": store_targets.DIGEST}])


def _manifest(**changes: Any) -> Callable[[], bytes]:
    def made() -> bytes:
        value = json.loads(manifests()[0])
        value["request"] |= changes
        return json.dumps(value).encode()

    return made


def _index(row: bytes) -> Callable[[], bytes]:
    return lambda: b"id,member,offset,size,width,height\n" + row + b"\n"


def _tar_of(kind: bytes, **pax: str) -> bytes:
    """A tar whose one member is no file; it is read by bytes alone, so nothing comes of it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("../../T000000.jpg")
        member.type, member.linkname, member.pax_headers = kind, "/etc/passwd", pax
        tar.addfile(member)
    return out.getvalue() + bytes(8_000)


_YAML = (
    ("python tag", b"!!python/object/apply:os.system ['touch ran']", "could not determine a constructor"),
    ("python name", b"cluster: !!python/name:os.system", "could not determine a constructor"),
    ("billion laughs", bombs.laughs(), "more than 100000 values"),
    ("billion merges", bombs.merges(), "more than 100000 values"),
    ("deep nesting", b"[" * 5_000, "nested too deeply"),
    ("nesting within bounds of Python", b"[" * 60 + b"]" * 60, "nested too deeply: at most 50"),
    ("a value within itself", b"a: &a {b: *a}", "nested too deeply"),
    ("a key within itself", b"&a {? *a : 1}", "nested too deeply"),
    ("huge decimal", b"data: {shard_megabytes: " + b"9" * 6_000 + b"}", "cannot be read"),
    ("huge hexadecimal", b"data: {shard_megabytes: 0x" + b"f" * 6_000 + b"}", "a number of 24000 bits"),
    ("no date", b"model: {backbone: 2001-99-99}", "month must be in 1..12"),
    ("a tag that its value belies", b"model: !!float y", "could not convert string to float"),
    ("a mapping as a key", b"{? {a: b} : c}", "unhashable key"),
    ("a megabyte", b"a: " + b"x" * (1 << 20), "at most 1048576 are read"),
)
_TEXTS = (
    ("utf-16", _truth(b"Q00001,R000001")().decode().encode("utf-16"), "UTF-8"),
    ("latin-1", _truth("Qé,R000001".encode("latin-1"))(), "UTF-8"),
    ("huge field", _truth(_WIDE)(), "field larger than field limit"),
    ("twice the same", _truth(b"Q00001,R000001", b"Q00001,R000001")(), ""),
    ("missing column", b"query_id\nQ00001\n", "expected the header query_id,reference_id, found 'query_id'"),
    ("NUL", _truth(b"\0,R000001,x")(), "found '\\x00,R000001,x'"),
    ("empty", b"", "expected the header"),
)
_NUMBERS = ("nan", "inf", "-1e999", "", "0x1", "one", "=1+1", "1;2")
_SETS: tuple[Any, ...] = (None, [], {"train": 3}, {"train": {"shards": "a.tar"}}, {"train": {"shards": [1]}})
_COMMITS = (
    ("parent", "../../../secret.txt"), ("absolute", "/etc/passwd"), ("own folder", "."), ("empty", ""),
    ("hidden parent", "a/../../../../secret.txt"), ("NUL", "a\0b"), ("very long", "x" * 5_000), ("slash", "a/"),
)  # fmt: skip


def _cases() -> list[Case]:
    return [
        *(Case(target, name, lambda data=data: data, USAGE, said)  # type: ignore[misc]
          for name, data, said in _YAML for target in ("profile", "deployed")),
        Case("profile", "no UTF-8", lambda: b"\xff\xfe", USAGE, "cannot read the settings file"),
        Case("profile", "a base with NUL", lambda: b'extends: "a\\0.yaml"', USAGE, "extends: cannot read"),
        Case("profile", "a base that is none", lambda: b"extends: dem", USAGE, "mine.yaml: extends: unknown profile"),
        Case("profile", "a base of another kind", lambda: b"extends: [demo]", USAGE, "expected a profile name or file"),
        Case("profile", "itself", lambda: b"extends: mine.yaml", USAGE, "extends itself"),
        Case("profile", "many unknown keys", lambda: b"\n".join(b"k%d: 1" % n for n in range(2_000)), USAGE,
             "1990 more unknown keys"),
        Case("profile", "more than a machine counts",
             lambda: b"extends: demo\ndata: {shard_megabytes: 9223372036854775808}", USAGE,
             "expected at most 9223372036854775807"),
        Case("override", "deep path", lambda: b"a." * 5_000 + b"a=1", USAGE, "expected key=value"),
        Case("override", "python tag", lambda: b"model.backbone=!!python/name:os.system", USAGE, "not valid YAML"),
        *(Case(target, "deep JSON", lambda: _NESTED, code) for target, code in (
            ("stage-spec", USAGE), ("manifest", DATA), ("commit", DATA), ("checkpoint-marker", None), ("piece", None),
            ("progress", None), ("lease", DATA), ("claimed-spec", DATA), ("last-words", None),
            ("dataset-marker", USAGE), ("shard-manifest", DATA))),
        Case("stage-spec", "other settings", lambda: _spec(settings={"data": {"max_pixels": -1}}), USAGE,
             "settings.data"),
        Case("stage-spec", "no compute", lambda: _spec(execution={"compute": []}), USAGE, "execution.compute"),
        Case("manifest", "of another run", _manifest(run="../other"), DATA, "is that of run '../other'"),
        Case("manifest", "of another version", _manifest(settings={"data": {}}), DATA, "not those of this version"),
        *(Case("commit", f"a name: {name}", _file(path), DATA, "is no name of a file within an output")
          for name, path in _COMMITS),
        Case("commit", "a file twice", _commit(files=[
            {"name": "b.csv", "size": 5, "sha256": store_targets.DIGEST}] * 2), DATA, "a file is named twice"),
        Case("commit", "of another stage", _commit(stage="../../train"), DATA, "that of another output"),
        Case("commit", "of another key", _commit(key="k" * 63), DATA, "that of another output"),
        Case("commit", "lists what is not there", _file("c.csv"), DATA, "is listed in its commit and missing"),
        *(Case("checkpoint-marker", f"a name: {name}", _json({path: store_targets.DIGEST}), None)
          for name, path in _COMMITS),
        Case("checkpoint-marker", "a list", _json(["state.pt"]), None),
        Case("piece", "a name outside", _json({"attempt": "mine/1", "result": {}, "files": [
            {"name": "../../../x", "size": 5, "sha256": store_targets.DIGEST}]}), None),
        Case("piece", "a file twice", _json({"attempt": "mine/1", "result": {}, "files": [
            {"name": "shards/train-00000.csv", "size": 5, "sha256": store_targets.DIGEST}] * 2}), None),
        Case("lease", "no process", _json({"host": "h", "pid": -1, "epoch": 1, "expires": 0}), DATA, "is damaged (pid"),
        Case("lease", "never ends", lambda: b'{"host": "h", "pid": 1, "epoch": 1, "expires": Infinity}', DATA,
             "is damaged (expires"),
        Case("last-words", "no exit code", lambda: b'{"exit_code": Infinity, "reason": "r"}', None),
        Case("listing", "one column", lambda: b"train_images/a.jpg\n", DATA, "is no listing of a source"),
        Case("listing", "a line without end", lambda: b"x" * (1 << 22), DATA, "is no listing of a source"),
        Case("listing-gzip", "zeros", partial(bombs.zeros_in_gzip, 300), DATA, "is no listing of a source"),
        Case("listing-gzip", "no gzip", lambda: b"plain", DATA, "Not a gzipped file"),
        Case("log", "zeros", partial(bombs.zeros_in_gzip, 300), None),
        Case("log", "no gzip", lambda: b"plain", DATA, "is damaged: Not a gzipped file"),
        Case("names", "a run outside", lambda: b"status\n../../etc", USAGE, "segment '..' may hold only"),
        Case("names", "a stage outside", lambda: b"logs\nmine\n../../../etc\n--attempt\n1", USAGE, "no run 'mine'"),
        Case("names", "a long name", lambda: b"cancel\n" + b"9" * 5_000, USAGE, "has 5019 characters"),
        Case("names", "control characters", lambda: b"cancel\nmine\n\x1b[2J", USAGE,
             "unrecognized arguments: \\x1b[2J"),
        *(Case("store-keys", key, lambda key=key: key.encode(), None)  # type: ignore[misc]
          for key in ("../secret.txt", "runs/../../secret.txt", "/etc/passwd", "..", "../", "../../", "a" * 300)),
        *(Case("source", f"an id: {key!r}", lambda key=key: b"train_images/" + key, DATA, "an id may hold")  # type: ignore[misc]
          for key in (b"a b.jpg", b"$(reboot).jpg", b"a\0b.jpg", b"=cmd.png", b"\xe9.jpg", b"x" * 65 + b".jpg")),
        Case("source", "twice the same id", lambda: b"train_images/a.jpg\ntrain_images/a.png", DATA, "is there twice"),
        Case("source", "a picture outside", lambda: b"train_images/../../etc/a.jpg", USAGE, "holds no pictures"),
        Case("picture", "50,000 x 50,000 PNG", partial(bombs.png, 50_000, 50_000), DATA, "50000x50000 is more than"),
        Case("picture", "65,500 x 65,500 JPEG", partial(bombs.jpeg, 65_500, 65_500), DATA, "65500x65500 is more than"),
        Case("picture", "JPEG that ends early", partial(bombs.jpeg, 1_900, 1_900), None),
        Case("picture", "GIF of 3,000 frames", partial(bombs.gif, 3_000), None),
        Case("picture", "PNG with 100 MB of text", bombs.png_text, DATA, "Decompressed data too large"),
        Case("picture", "1,000 scans", partial(bombs.progressive_scans, 1_900, 1_000), DATA,
             "scans over 3610000 pixels"),
        *(Case("index", name, _index(row), DATA, "a.csv is no shard index") for name, row in (
            ("negative offset", b"T,T.jpg,-1,5,1,1"), ("negative size", b"T,T.jpg,512,-5,1,1"),
            ("huge size", b"T,T.jpg,512,99999999999999999999,1,1"), ("words", b"T,T.jpg,one,5,1,1"),
            ("short row", b"T"), ("huge field", _WIDE), ("not a number", b"T,T.jpg,nan,5,1,1"))),
        Case("shard-index", "100 TB", _index(b"T,T.jpg,512,100000000000000,1,1"), DATA, "'T.jpg' ends early"),
        Case("shard-index", "beyond the end", _index(b"T,../../T.jpg,99999999,5,1,1"), DATA,
             "'../../T.jpg' ends early"),
        *(Case("shard", name, partial(_tar_of, kind), None) for name, kind in (
            ("symbolic link", tarfile.SYMTYPE), ("hard link", tarfile.LNKTYPE), ("character device", tarfile.CHRTYPE),
            ("block device", tarfile.BLKTYPE), ("FIFO", tarfile.FIFOTYPE), ("sparse", tarfile.GNUTYPE_SPARSE))),
        Case("shard", "PAX headers of 4 MB", lambda: _tar_of(tarfile.REGTYPE, comment="x" * (4 << 20)), None),
        Case("shard", "cut", lambda: b"x" * 100, DATA, "ends early"),
        Case("shard-manifest", "a shard outside", _json({"sets": {"train": {"shards": ["../../etc/passwd.tar"]}}}),
             DATA, "holds no '../../etc/passwd.csv'"),
        *(Case("shard-manifest", f"sets {value!r}", _json({"sets": value}), DATA, "is damaged")
          for value in _SETS),
        *(Case(target, name, lambda data=data: data, DATA, said)  # type: ignore[misc]
          for name, data, said in _TEXTS for target in ("ground-truth", "truth")),
        *(Case("matches", f"a score: {score!r}", _matches(b"Q00001,R000001," + score.encode()), DATA, "line 2: score")
          for score in _NUMBERS),
        Case("matches", "a formula as an id", _matches(b"=cmd|' /C calc'!A0,R000001,1"), DATA, "names no query of"),
        Case("matches", "a path as an id", _matches(b"Q00001,../../etc/passwd,1"), None),
        Case("matches", "too many", lambda: _matches()().strip() + b"\nQ,R,1" * 500_001, DATA,
             "has 500001 rows, at most 500000 are allowed"),
        Case("descriptors", "100 GB of gzipped zeros", partial(bombs.hdf5, 100_000_000), DATA,
             "query claims 102400000000 bytes"),
        Case("descriptors", "no HDF5", lambda: b"\x89HDF\r\n\x1a\n" + bytes(500), DATA, "no HDF5 descriptor file"),
        Case("weights", "2 GB of zeros", partial(bombs.zeros_in_zip, "x/data.pkl", 300), DATA, "that claim to be"),
        Case("weights", "no zip", lambda: b"PK" + bytes(100), DATA, "weights.pth.tar"),
        Case("kept-descriptors", "zeros", partial(bombs.zeros_in_zip, "keys.npy", 300), None),
        Case("kept-descriptors", "a pickle", lambda: _npz(np.array([print], object)), None),
        Case("kept-descriptors", "other arrays", lambda: _npz(np.array([1])), None),
        Case("state", "a number cut short", lambda: b"X", DATA, "cut short or damaged"),
        Case("state", "of another kind", lambda: _state([1, 2]), DATA, "state.pt is no state of a training"),
        Case("backbone", "code", lambda: pickle.dumps(print, 2), DATA, "hold more than tensors"),
    ]  # fmt: skip


def _spec(**changes: Any) -> bytes:
    spec = store_targets.SPEC.model_dump(mode="json") | changes
    return json.dumps(spec).encode()


def _npz(array: "np.ndarray[Any, Any]") -> bytes:
    out = io.BytesIO()
    np.savez(out, keys=array, rows=array, bad=array, reasons=array)
    return out.getvalue()


def _state(content: object) -> bytes:
    import torch

    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


CASES = _cases()
