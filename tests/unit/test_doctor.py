"""isc-jobs doctor tries things, and tells what to do."""

import argparse
from pathlib import Path

import pytest

from isc_jobs.commands.doctor import doctor
from isc_jobs.commands.examination import _amount, _machine, _package, _store


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster, a work folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("ISC_JOBS_STORE", raising=False)
    monkeypatch.setenv("ISC_JOBS_WORK", str(tmp_path / "work"))


def asked(store: Path | None = None) -> argparse.Namespace:
    return argparse.Namespace(store=None if store is None else str(store), namespace="isc-jobs")


def test_what_the_tests_run_with_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(asked(tmp_path / "store")) == 0
    said = capsys.readouterr().out
    assert "ok       package torch\n" in said
    assert f"ok       store {tmp_path / 'store'}, which is not there yet: conditional writes are kept\n" in said
    assert not (tmp_path / "store").exists()
    assert "note     no cluster is configured: runs are on this machine\n" in said
    assert said.endswith("runs can start here\n")


def test_a_package_that_breaks_on_import_is_missing_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "timm.py").write_text("raise ImportError('libcudart.so.13 is not there')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = _package("timm", "cpu")
    assert found.state == "MISSING"
    assert "libcudart.so.13 is not there" in found.sentence
    assert "pip install 'isc-jobs[cpu]'" in found.sentence
    assert doctor(asked()) == 64
    assert "1 of " in capsys.readouterr().out.splitlines()[-1]


def test_a_work_folder_that_cannot_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ISC_JOBS_WORK", str(tmp_path / "file/work"))
    [found] = [finding for finding in _machine() if finding.state == "MISSING"]
    assert "cannot be written (Not a directory): name another, ISC_JOBS_WORK" in found.sentence


def test_a_store_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = _store(asked(tmp_path / "file"))
    assert (found.state, "is a file: give a folder" in found.sentence) == ("MISSING", True)


def test_less_than_wanted_is_a_note_with_the_remedy() -> None:
    found = _amount("memory", 3 << 30, 6 << 30, "of the demo; close what uses it")
    assert (found.state, found.sentence) == ("note", "memory: 3.0 GB, less than the 6 of the demo; close what uses it")
