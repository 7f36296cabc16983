"""What the system says of files and folders becomes a sentence and a code."""

import errno
import os
from pathlib import Path

import pytest

from isc_jobs.datasets.make import make_dataset
from isc_jobs.spec.errors import ExitCode, UsageError, of_file
from isc_jobs.store.source import check_folder

PHOTOS = Path(__file__).parents[2] / "examples/photos"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EACCES, ExitCode.USAGE), (errno.EROFS, ExitCode.USAGE), (errno.ENOSPC, ExitCode.TEMPORARY)],
)
def test_an_error_that_names_a_file_is_one_sentence(number: int, code: ExitCode) -> None:
    error = of_file(OSError(number, os.strerror(number), b"/some/pl\xe4ce"))
    assert error is not None
    assert error.exit_code == code
    assert str(error).startswith(f"/some/pl\\udce4ce: {os.strerror(number)}: ")
    assert of_file(OSError(number, os.strerror(number))) is None  # nobody knows of what
    assert of_file(OSError(number, os.strerror(number), 3)) is None


def test_a_folder_that_is_none_or_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    check_folder(tmp_path, "give another")
    for name, said in (("file", "is not a folder: give another"), ("absent", "is not there: give another")):
        with pytest.raises(UsageError, match=f"^the {tmp_path / name} {said}$"):
            check_folder(tmp_path / name, "give another", "the ")

    def closed(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UsageError, match=r"cannot be read \(Permission denied\)"):
        check_folder(tmp_path, "give another")


def test_a_photo_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed, read = sorted(PHOTOS.glob("*.jpg"))[3], Path.read_bytes

    def some_read(path: Path) -> bytes:
        if path == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", some_read)
    assert make_dataset(PHOTOS, tmp_path / "set", seed=0)["bad"] == 1
    assert f"left out: {closed}: cannot be read: Permission denied" in capsys.readouterr().out
