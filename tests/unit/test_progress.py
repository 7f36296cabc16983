"""Progress says what is known: counts at once, rate and time left when there is a rate."""

import json

import pytest

from isc_jobs.store.progress import Progress


def test_lines_and_state(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("isc_jobs.store.progress.time.monotonic", lambda: now[0])
    written: list[dict[str, float]] = []
    progress = Progress("train", lambda data: written.append(json.loads(data)), every_s=5)
    now[0] = 107.0
    progress(32, 1000, loss=0.5)
    assert capsys.readouterr().out == "train  32/1000  loss 0.5\n"
    now[0] = 108.0
    progress(132, 1000, loss=0.25)
    assert not capsys.readouterr().out
    now[0] = 112.0
    progress(532, 1000, loss=0.125)
    assert capsys.readouterr().out == "train  532/1000  100.0/s  0m05s left  loss 0.125\n"
    now[0] = 117.0
    progress(1000, 1000)
    assert capsys.readouterr().out == "train  1000/1000  96.8/s  0m00s left\n"
    now[0] = 0.0
    slow = Progress("train", lambda _: None, every_s=5)
    slow(1, 100)
    now[0] = 6.0
    slow(2, 100)
    assert capsys.readouterr().out.splitlines()[-1] == "train  2/100  6.0 s each  9m48s left"
    assert [(entry["step"], entry["rate"], entry["eta_s"]) for entry in written] == [
        (32, 0.0, 0.0), (532, 100.0, 4.7), (1000, 96.8, 0.0),
    ]  # fmt: skip
