"""The whole pipeline by the command line, on real photos, with real processes."""

import argparse
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from commands import PHOTOS, command, isc_jobs, run_all, untraced

from isc_jobs.spec.profile import load_settings
from isc_jobs.vision.model import DescriptorModel, build_model, normalise
from isc_jobs.vision.resize import load_resized


@pytest.mark.xdist_group("finished")
def test_the_pipeline_runs_is_skipped_reruns_what_changed_and_takes_weights(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(finished, tmp_path / "store"))
    report = next(store.glob("artifacts/evaluate/*/report.html")).read_text()
    assert "Matches" in report
    assert "http://" not in report.replace("http://www.w3.org", "")
    with h5py.File(next(store.glob("artifacts/postprocess/*/v107_iso.h5"))) as file:
        assert file["query"].shape[1] == 256
        assert file["query_ids"].dtype == "S6"
        assert file["reference_ids"].dtype == "S7"

    assert len(list(store.glob("listings/*.tsv.gz"))) == 1
    again = isc_jobs(*run_all(data, store))
    assert again.returncode == 0
    assert "starts" not in again.stdout

    changed = isc_jobs(*run_all(data, store, "--set", "postprocess.beta=0.1"))
    started = [line.split()[0] for line in changed.stdout.splitlines() if line.endswith("  starts")]
    assert started == ["postprocess", "evaluate"]

    status = json.loads(isc_jobs("status", "test", "--store", store, "--json").stdout)
    assert status["state"] == "succeeded"
    assert "committed after" in isc_jobs("logs", "test", "train-v83", "--store", store).stdout
    absent = isc_jobs("logs", "test", "train-v83", "--rank", 3, "--store", store)
    assert (absent.returncode, "no log of train-v83 attempt 1 rank 3: it has rank 0" in absent.stderr) == (64, True)

    truth = data / "ground_truth_phase2.csv"
    submission = next(store.glob("artifacts/postprocess/*/v107_iso.csv"))
    assert isc_jobs("evaluate", submission, truth).stdout.startswith("matching track\nuAP")
    table = isc_jobs("status", "test", "--store", store).stdout.splitlines()
    assert table[-1].startswith("uap 0.")
    assert Path(table[-1].split("report: ")[1]).is_file()
    latest = isc_jobs("logs", "test", "train-v83", "--attempt", 7, "--store", store)
    assert (latest.returncode, "there are attempts 1," in latest.stderr) == (64, True)

    weights = next(store.glob("artifacts/train-v107/*/checkpoint.pth.tar"))
    shown = json.loads(isc_jobs("checkpoint", "inspect", weights, "--json").stdout)
    assert (shown["loads"], shown["layout"], shown["epoch"], shown["input_size"]) == (True, "original", 1, 32)
    assert shown["args"] == {
        "arch": "tf_efficientnet_lite0", "input_size": 32, "gem_p": 1.0, "gem_eval_p": 1.0, "dimensions": 256,
        "training": "v107",
    }  # fmt: skip
    given = isc_jobs(*run_all(data, store, "--weights", weights, "--until", "extract"))
    assert given.returncode == 0, given.stdout + given.stderr
    assert "train-v83" not in given.stdout

    other = isc_jobs(*run_all(data, store, "--weights", weights, "--set", "model.dimensions=128"))
    assert other.returncode == 65
    assert "of another shape: fc.weight" in other.stderr


@pytest.mark.xdist_group("finished")
def test_a_terminal_gets_a_table_and_a_browser_a_link(finished: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"}
    watching = subprocess.Popen(
        command("status", "test", "--store", finished, "--watch"), stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    with suppress(OSError):  # the other side has ended
        while part := os.read(ours, 1 << 16):
            said += part
    assert watching.wait(60) == 0
    shown = said.decode()
    assert "run test: succeeded" in shown
    assert "\x1b[32mfinished" in shown
    assert re.search(r"uap 0\.\d+ .*report: ", shown)
    link = isc_jobs("report", "test", "--store", finished).stdout.strip()
    with urllib.request.urlopen(link) as page:
        text = page.read().decode()
    assert "Run test: succeeded." in text
    assert "Matches" in text


@pytest.mark.xdist_group("finished")
def test_diff_says_what_differs_and_what_that_runs_again(finished: Path, data: Path, tmp_path: Path) -> None:
    def differs(source: Path, *more: str) -> list[str]:
        shown = isc_jobs("diff", *run_all(source, finished, *more)[1:])
        assert shown.returncode == 0, shown.stderr
        return shown.stdout.splitlines()

    same = differs(data)
    assert [line.split()[-1] for line in same] == ["same"] * len(same)
    changed = differs(data, "--set", "postprocess.beta=0.1")
    assert changed[0] == "postprocess.beta: 0.35 -> 0.1"
    assert [line.split()[0] for line in changed if line.endswith("runs again")] == ["postprocess", "evaluate"]

    other = Path(shutil.copytree(data, tmp_path / "data"))
    next((other / "train_images").iterdir()).unlink()
    moved = differs(other)
    assert moved[0] == f"source: {data} -> {other}"
    assert moved[1].startswith("source: its pictures or tables are others (")
    assert all(line.endswith("runs again") for line in moved[2:])


def original_checkpoint(path: Path) -> DescriptorModel:
    """Weights of the demo's size as the original's training wrote its files."""
    torch.manual_seed(0)
    settings = load_settings("demo").model
    model = build_model(settings, pretrained=True)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-6)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    optimiser.step()
    content = {
        "epoch": 10, "arch": settings.backbone, "state_dict": torch.nn.ModuleDict({"module": model}).state_dict(),
        "optimizer": optimiser.state_dict(),
        "args": argparse.Namespace(arch=settings.backbone, input_size=512, gem_p=1.0, gem_eval_p=1.0, seed=99999),
    }  # fmt: skip
    torch.save(content, path)
    return model.eval()


@pytest.mark.xdist_group("run")
def test_published_weights_go_straight_to_inference(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "isc_ft_v107.pth.tar"
    model = original_checkpoint(weights)
    given = ["--from", "extract", "--weights", weights, "--set", "evaluate.compare=[]"]
    ran = isc_jobs(*run_all(data, tmp_path / "store", *given))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    started = [line.split()[0] for line in ran.stdout.splitlines() if line.endswith("  starts")]
    assert started == ["download", "extract", "postprocess", "evaluate"]
    with h5py.File(next((tmp_path / "store").glob("artifacts/extract/*/descriptors.h5"))) as file:
        id_, row = file["reference_ids"][3].decode(), file["reference"][3]
    photo = next((data / "reference_images").glob(f"{id_}.*"))
    with torch.inference_mode():
        expected = model(normalise(load_resized(photo.read_bytes(), 32)[None]))[0].numpy()
    np.testing.assert_allclose(row, expected, atol=1e-5)
    assert next((tmp_path / "store").glob("artifacts/postprocess/*/v107_iso.csv")).is_file()

    converted = tmp_path / "weights.safetensors"
    assert isc_jobs("checkpoint", "convert", weights, converted).returncode == 0
    again = isc_jobs(*run_all(data, tmp_path / "store", *given[:3], converted, "--until", "extract"))
    assert again.returncode == 0, again.stdout + again.stderr
    first, second = (path.read_bytes() for path in (tmp_path / "store").glob("artifacts/extract/*/descriptors.h5"))
    assert first == second


@pytest.mark.xdist_group("run")
def test_an_interrupted_training_goes_on_and_ends_the_same_to_the_bit(data: Path, tmp_path: Path) -> None:
    until = ["--until", "train-v83", "--set", "trainings.v83.sample_size=160"]
    whole = isc_jobs(*run_all(data, tmp_path / "whole", *until))
    assert whole.returncode == 0, whole.stdout
    controller = subprocess.Popen(
        command(*run_all(data, tmp_path / "cut", *until)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=untraced(),
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cut").glob("checkpoints/*/step-*/marker.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = isc_jobs(*run_all(data, tmp_path / "cut", *until))
    assert (second.returncode, "held by another controller" in second.stderr) == (75, True)
    controller.send_signal(signal.SIGINT)
    assert controller.wait(60) == 130
    resumed = isc_jobs("resume", "test", "--store", tmp_path / "cut")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    checkpoints = [next((tmp_path / name).glob("artifacts/train-v83/*/commit.json")) for name in ("whole", "cut")]
    digests = [{f["name"]: f["sha256"] for f in json.loads(path.read_text())["files"]} for path in checkpoints]
    assert digests[0]["checkpoint.pth.tar"] == digests[1]["checkpoint.pth.tar"]


@pytest.mark.xdist_group("run")
def test_a_training_with_loaders_keeps_its_last_step_when_it_is_interrupted(data: Path, tmp_path: Path) -> None:
    """Loaders are in the group that is told to end, but the step needs them."""
    more = ["--until", "train-v83", "--set", "trainings.v83.sample_size=1600", "--set", "compute.loader_workers=2",
            "--set", "compute.checkpoint_every_steps=1000"]  # fmt: skip
    with (tmp_path / "said").open("w") as said:
        controller = subprocess.Popen(
            command(*run_all(data, tmp_path / "store", *more)), stdout=said, stderr=said, env=untraced()
        )
    deadline = time.monotonic() + 120
    while not re.search(r"train-v83  [1-9]\d*/\d", (tmp_path / "said").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    controller.send_signal(signal.SIGINT)
    assert controller.wait(60) == 130
    shown = (tmp_path / "said").read_text()
    stopped = re.search(r"stopped at step (\d+) of \d+; a checkpoint is kept", shown)
    assert stopped, shown
    resumed = isc_jobs("resume", "test", "--store", tmp_path / "store")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert f"from step {stopped[1]}\n" in resumed.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run-all", "--profile", "nothing", "--source", "."], 64, "unknown profile"),
        (
            ["run-all", "--profile", "demo"],
            64,
            "without it runs are in a cluster, and no cluster is configured: set KUBECONFIG",
        ),
        (["run-all", "--profile", "demo", "--source", "/absent"], 64, "is not there: give one that"),
        (
            ["run-all", "--profile", "none.yaml"],
            64,
            "cannot read the settings file none.yaml: No such file or directory",
        ),
        (["stauts", "mine"], 64, "unknown 'stauts': is status meant?"),
        (
            ["dataset", "make", str(PHOTOS), "--out", "/proc/none/set"],
            64,
            "/proc/none: No such file or directory: mend",
        ),
        (["completion", "fish"], 64, "unknown 'fish': expected one of bash, zsh, tcsh"),
        (["run-all", "--nonsense"], 64, "--help"),
        (["status", "absent"], 64, "no run 'absent'"),
        (["dataset", "make", "/absent", "--out", "x"], 64, "is not there: give a folder"),
        (["run-all", "--source", str(PHOTOS), "--dry-run"], 64, "make such a data set with `isc-jobs dataset make`"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_code(arguments: list[str], code: int, sentence: str, tmp_path: Path) -> None:
    result = isc_jobs(*arguments, env={"ISC_JOBS_STORE": str(tmp_path / "store")})
    assert result.returncode == code
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "store").exists()  # a mistake leaves nothing behind


def test_a_plan_that_cannot_run_is_refused_and_writes_nothing(data: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    planned = isc_jobs(*run_all(data, store, "--dry-run"))
    assert (planned.returncode, planned.stdout.count("  run\n")) == (0, 10)
    early = isc_jobs(*run_all(data, store, "--from", "extract", "--dry-run"))
    assert (early.returncode, "needs download, which is not finished" in early.stderr) == (64, True)
    text = isc_jobs(*run_all(data, store, "--weights", __file__, "--dry-run"))
    assert (text.returncode, "is no PyTorch checkpoint" in text.stderr) == (65, True)
    assert not store.exists()


@pytest.mark.xdist_group("run")
def test_bad_data_end_the_run_with_65(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    for path in sorted((broken / "train_images").iterdir())[:20]:
        path.write_bytes(path.read_bytes()[:200])
    result = isc_jobs(*run_all(broken, tmp_path / "store"))
    assert result.returncode == 65
    assert "data.max_bad_share" in result.stderr
    shutil.rmtree(broken)
    shutil.copytree(data, broken)
    with (broken / "ground_truth_phase1.csv").open("a") as file:
        file.write("Q99999,R000000\n")
    result = isc_jobs(*run_all(broken, tmp_path / "store"))
    assert (result.returncode, "'Q99999'" in result.stderr) == (65, True)
