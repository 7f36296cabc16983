"""The page of a run while it goes on, and as it ended."""

from pathlib import Path
from typing import Any

import pytest

from isc_jobs.controller.live_report import LiveReport
from isc_jobs.controller.manifest import AttemptRecord, Manifest, Running
from isc_jobs.controller.request import Request
from isc_jobs.controller.status import report_key, stage_status
from isc_jobs.report.page import page
from isc_jobs.spec.stage import InputRef, attempt_prefix, curve_key
from isc_jobs.store import Store, open_store
from isc_jobs.store.artifacts import publish

STAGES = {name: name[-1] * 64 for name in ("download", "train-v83", "evaluate")}
CURVE = b"step,epoch,loss,positive_loss,negative_loss,koleo_loss,lr,seconds\n1,0,.9,.5,.4,0,.1,1\n2,0,.7,.4,.3,0,.1,1\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def manifest(state: str = "running", **more: Any) -> Manifest:
    request = Request(run="mine", settings={}, source="/photos", anonymous=False, source_digest="0" * 64,
                      weights_sha256=None, first=None, last=None, launcher="local")  # fmt: skip
    values: dict[str, Any] = {"request": request, "stages": STAGES, "state": state}
    return Manifest.model_construct(**values, reason="", epoch=1, **({"attempts": [], "running": []} | more))


def finish(store: Store, folder: Path, stage: str, **files: str) -> None:
    out = folder / f"out-{stage}"
    out.mkdir()
    for name, content in files.items():
        (out / name.replace("_", ".")).write_text(content)
    ref = InputRef(stage=stage, key=STAGES[stage])
    publish(store, ref, out, run="mine", attempt=1, summary={"uap": 0.5}, provenance={}, seconds=61.0)


def shown(store: Store) -> str:
    return store.get(report_key("mine"))[0].decode()


def test_a_running_stage_has_place_progress_cause_and_curve(store: Store) -> None:
    prefix = attempt_prefix("mine", "train-v83", 2)
    store.put(f"{prefix}/spec.json", b"")
    store.put(f"{prefix}/progress.json", b'{"step": 2, "total": 8, "rate": 0.5, "eta_s": 12, "line": "from step <0>"}')
    store.put(curve_key(prefix), CURVE)
    evicted = AttemptRecord(stage="train-v83", attempt=1, exit_code=143, kind="disruption", reason="pod p was evicted")
    running = Running(stage="train-v83", attempt=2, where="pod a on gpu-1, 8 GPUs", waits="Unschedulable: 0/1")
    LiveReport(store).write(manifest(attempts=[evicted], running=[running]), set())
    html = shown(store)
    for said in ("2 of 8, 2.0 s each, 12.0 s left", "pod a on gpu-1, 8 GPUs; Unschedulable: 0/1; from step &lt;0&gt;",
                 "pod p was evicted", "disruption", "Loss of train-v83, loss over step", "0 of 3"):  # fmt: skip
        assert said in html
    assert '<meta http-equiv="refresh" content="60">' in html


def test_a_stage_that_was_disrupted_is_interrupted_until_something_follows(store: Store) -> None:
    evicted = AttemptRecord(stage="train-v83", attempt=1, exit_code=143, kind="disruption", reason="SIGINT")
    stopped = manifest("interrupted", attempts=[evicted])
    assert stage_status(store, stopped, "train-v83", STAGES["train-v83"])["state"] == "interrupted"
    LiveReport(store).write(stopped, set())
    assert ">interrupted</td>" in shown(store)
    assert "failed" not in shown(store)


def test_stages_that_were_not_asked_for_are_left_out_of_the_count(store: Store, tmp_path: Path) -> None:
    finish(store, tmp_path, "download", a_txt="x")
    asked = manifest("succeeded", part=["download"])
    LiveReport(store).write(asked, {"download"})
    html = shown(store)
    assert "1 of 1" in html
    assert (html.count("left out"), html.count("waiting")) == (2, 0)
    states = [stage_status(store, asked, name, key)["state"] for name, key in STAGES.items()]
    assert states == ["finished", "left out", "left out"]
    assert stage_status(store, manifest(), "evaluate", STAGES["evaluate"])["state"] == "waiting"


def test_the_last_page_is_the_scores_and_how_the_run_went(store: Store, tmp_path: Path) -> None:
    finish(store, tmp_path, "download")
    finish(store, tmp_path, "train-v83", history_csv=CURVE.decode())
    report = LiveReport(store)
    report.write(manifest(), {"download", "train-v83"})
    assert "2 of 3" in shown(store)
    assert "2 min 02 s" in shown(store)
    assert "Loss of train-v83" in shown(store)
    finish(store, tmp_path, "evaluate", report_html=page("Scores", ["uAP 0.5"], [], []))
    report.write(manifest("succeeded"), set(STAGES))
    html = shown(store)
    assert html.count("</html>") == 1
    assert "uAP 0.5" in html
    assert "Run mine: succeeded." in html
    assert "refresh" not in html


@pytest.mark.parametrize("file", ["output_txt", "report_html"])
def test_scores_without_a_whole_page_cost_no_run_and_are_said(store: Store, tmp_path: Path, file: str) -> None:
    finish(store, tmp_path, "evaluate", **{file: "of evaluate"})
    LiveReport(store).write(manifest("succeeded"), {"evaluate"})
    assert "The scores are left out: " in shown(store)
    assert "succeeded" in shown(store)


def test_a_failed_run_says_why(store: Store) -> None:
    failed = AttemptRecord(stage="download", attempt=1, exit_code=65, kind="permanent", reason="x.jpg: damaged")
    LiveReport(store).write(manifest("failed", attempts=[failed]), set())
    assert "x.jpg: damaged" in shown(store)
    assert "refresh" not in shown(store)


@pytest.mark.parametrize("damage", [b"", b"\xff", b"step,loss\n1,2\n", CURVE.replace(b".7", b"x")])
def test_a_damaged_curve_is_left_out_and_said(store: Store, damage: bytes) -> None:
    store.put(curve_key(attempt_prefix("mine", "train-v83", 1)), damage)
    LiveReport(store).write(manifest(running=[Running(stage="train-v83", attempt=1)]), set())
    assert "The curves of train-v83 are left out" in shown(store)


def test_it_is_written_when_something_began_and_else_rarely(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    report, written = LiveReport(store), list[int]()
    monkeypatch.setattr(report, "write", lambda *_: written.append(1))
    for now in range(1000, 1600):
        report.refresh(manifest(), set(), float(now), 1000.0)
    assert 10 <= len(written) <= 60
    before = len(written)
    report.refresh(manifest(), set(), 1600.0, 1600.0)
    assert len(written) == before + 1
