"""What a stage made comes out of the store as it was committed, and replaces nothing."""

from pathlib import Path

import pytest
from stores import s3, store

from isc_jobs import cli
from isc_jobs.commands import fetching
from isc_jobs.controller.manifest import Manifest, manifest_key
from isc_jobs.controller.request import Request
from isc_jobs.spec.stage import InputRef
from isc_jobs.store import Store
from isc_jobs.store.artifacts import publish

__all__ = ["s3", "store"]

STAGES = {"download": "d" * 64, "train-v83": "1" * 64, "evaluate": "e" * 64}
FILES = {"checkpoint.pth.tar": b"weights", "tensorboard/events": b"curves"}


@pytest.fixture
def held(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with a run, one of whose stages has finished."""
    request = Request(run="mine", settings={}, source="/photos", anonymous=False, source_digest="0" * 64,
                      weights_sha256=None, first=None, last=None, launcher="local")  # fmt: skip
    manifest = Manifest(request=request, stages=STAGES, part=["download", "train-v83"], state="running", epoch=1)
    store.put(manifest_key("mine"), manifest.model_dump_json().encode())
    for name, content in FILES.items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    ref = InputRef(stage="train-v83", key=STAGES["train-v83"])
    publish(store, ref, tmp_path / "out", run="mine", attempt=1, summary={}, provenance={}, seconds=1.0)
    monkeypatch.setattr(fetching, "open_named_store", lambda _: store)
    return store


def fetch(stage: str, folder: Path) -> int:
    return cli.main(["fetch", "mine", stage, str(folder)])


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_copied_and_what_is_there_already_is_kept(
    held: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "weights"
    assert fetch("train-v83", folder) == 0
    assert content(folder) == FILES
    assert capsys.readouterr().out.splitlines()[0] == f"{folder}/checkpoint.pth.tar  7 bytes"
    (folder / "mine.txt").write_bytes(b"mine")
    (folder / "tensorboard" / "events").unlink()
    assert fetch("train-v83", folder) == 0
    assert content(folder) == FILES | {"mine.txt": b"mine"}


def test_another_file_of_that_name_is_not_replaced(
    held: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint.pth.tar").write_bytes(b"better weights")
    assert fetch("train-v83", tmp_path) == 64
    assert "checkpoint.pth.tar is there and is another: choose a folder without it" in capsys.readouterr().err
    assert (tmp_path / "checkpoint.pth.tar").read_bytes() == b"better weights"
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize(
    ("stage", "code", "sentence"),
    [
        ("train-v38", 64, "has no stage 'train-v38': is train-v83 meant?"),
        ("other", 64, "has no stage 'other': expected one of download, train-v83, evaluate"),
        ("download", 75, "download of run mine is waiting: fetch it once `isc-jobs status mine` says finished"),
        ("evaluate", 64, "evaluate of run mine has made nothing: it is left out"),
    ],
)
def test_a_stage_that_is_not_there_or_not_finished(
    held: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, code: int, sentence: str
) -> None:
    assert fetch(stage, tmp_path / "weights") == code
    assert sentence in capsys.readouterr().err


def test_a_damaged_output_and_a_file_for_a_folder_are_refused(
    held: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held.put(f"artifacts/train-v83/{STAGES['train-v83']}/checkpoint.pth.tar", b"WEIGHTS")
    assert fetch("train-v83", tmp_path / "weights") == 65
    assert "checkpoint.pth.tar is damaged" in capsys.readouterr().err
    assert content(tmp_path / "weights") == {}
    (tmp_path / "file").write_bytes(b"")
    assert fetch("train-v83", tmp_path / "file") == 64
    assert f"isc-jobs: {tmp_path / 'file'}: File exists: mend that, or name another" in capsys.readouterr().err
