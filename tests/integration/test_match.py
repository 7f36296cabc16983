"""isc-jobs match and the other tools for weights as a user calls them, on real photos with real features."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from commands import PHOTOS, command, isc_jobs, untraced
from PIL import Image, ImageEnhance, ImageOps

from isc_jobs.matching.chunks import Chunks
from isc_jobs.matching.pictures import list_pictures

EDITS = (
    lambda image: image.crop((image.width // 8, image.height // 8, image.width, image.height)),
    ImageOps.mirror,
    ImageOps.grayscale,
    lambda image: ImageEnhance.Brightness(image).enhance(1.5),
)
OUTPUTS = ("found.csv", "found.json", "found.html", "found.bad.csv")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow where tests share a machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet features of the photos, whitened, as a checkpoint of a training."""
    from isc_jobs.spec.profile import load_settings
    from isc_jobs.training.checkpoint import write_checkpoint
    from isc_jobs.training.whitening import set_whitening
    from isc_jobs.vision.model import build_model, normalise
    from isc_jobs.vision.resize import load_resized

    settings = load_settings("demo").model
    torch.manual_seed(0)
    model = build_model(settings, pretrained=True).eval()
    with torch.inference_mode():
        photos = (load_resized(path.read_bytes(), 96)[None] for path in sorted(PHOTOS.glob("*.jpg"))[::2])
        set_whitening(model, torch.cat([model.pool(normalise(photo)) for photo in photos]).double())
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pth.tar"
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    args = {"input_size": 96, "gem_eval_p": 1.0}
    write_checkpoint(path, model, optimiser, epoch=1, arch=settings.backbone, args=args)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``references``: sixty photos; ``queries``: edited copies of sixteen of them, four strangers, three bad files."""
    root = tmp_path_factory.mktemp("photos")
    (root / "references/more").mkdir(parents=True)
    (root / "queries/deep/er").mkdir(parents=True)
    chosen = sorted(PHOTOS.glob("*.jpg"))
    for number, path in enumerate(chosen[:60]):
        shutil.copy(path, root / "references" / ("more" if number % 2 else "") / path.name)
    for number, path in enumerate(chosen[:48:3]):
        with Image.open(path) as image:
            image.thumbnail((400, 400))
            edited = EDITS[number % len(EDITS)](image.convert("RGB"))
            edited.convert("RGB").save(root / "queries/deep/er" / path.name, quality=70)
    for path in chosen[60:64]:
        shutil.copy(path, root / "queries" / f"stranger-{path.name}")
    (root / "queries/empty.jpg").touch()
    (root / "queries/cut.jpg").write_bytes(chosen[0].read_bytes()[:2000])
    (root / "queries/text.png").write_text("no picture")
    return root


def match(weights: Path, photos: Path, out: Path, *more: object, queries: str = "queries") -> list[object]:
    return ["match", "--weights", weights, "--references", photos / "references", "--queries", photos / queries,
            "--out", out, "--batch", 4, "--workers", 1, *more]  # fmt: skip


def rows_of(out: Path) -> list[dict[str, str]]:
    with out.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_right(row: dict[str, str]) -> bool:
    return Path(row["query_id"]).name == Path(row["reference_id"]).name


@pytest.fixture(scope="module")
def found(weights: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run to its end."""
    folder = tmp_path_factory.mktemp("found")
    ran = isc_jobs(*match(weights, photos, folder / "found.csv"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "references  60/60" in ran.stdout
    assert "by edited copies of 60 references" in ran.stdout
    assert "3 pictures could not be used" in ran.stdout
    return folder


@pytest.mark.xdist_group("match")
def test_copies_are_found_and_bad_pictures_are_named(found: Path) -> None:
    rows = rows_of(found / "found.csv")
    assert len(rows) == 20
    assert sum(map(is_right, rows)) >= 15
    assert [row["query_id"] for row in rows] == sorted(row["query_id"] for row in rows)
    numbers = json.loads((found / "found.json").read_text())
    assert numbers["precision"] >= 0.9
    assert [row["copy"] for row in rows] == [
        "yes" if float(row["score"]) >= numbers["threshold"] else "no" for row in rows
    ]
    assert numbers["pictures"] == {"references": 60, "queries": 23}
    with (found / "found.bad.csv").open() as file:
        bad = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert bad["empty.jpg"] == "empty file"
    assert bad["text.png"] == "no known image format"
    assert bad["cut.jpg"].startswith("cannot be decoded")
    html = (found / "found.html").read_text()
    assert "Surest matches" in html
    assert "Which scores are copies" in html
    assert html.count("data:image/jpeg;base64,") >= 20
    assert "://" not in html.replace("http://www.w3.org", "")  # nothing comes from elsewhere


@pytest.mark.xdist_group("match")
def test_an_interrupted_run_keeps_what_is_done_and_ends_the_same_to_the_byte(
    weights: Path, photos: Path, found: Path, tmp_path: Path
) -> None:
    arguments = command(*match(weights, photos, tmp_path / "found.csv"))
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=untraced(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a background job ignores it
    )  # fmt: skip
    wait_until_describing(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "isc-jobs: interrupted\n")
    kept = list(tmp_path.glob("found.work/*/*.npz"))
    assert kept
    assert not (tmp_path / "found.csv").exists()
    ran = isc_jobs(*match(weights, photos, tmp_path / "found.csv"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    began_anew = re.search(r"^references  \d", ran.stdout, re.MULTILINE) and "are described already" not in ran.stdout
    assert not began_anew
    assert all(path.exists() for path in kept)
    for name in OUTPUTS:
        assert (tmp_path / name).read_bytes() == (found / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*OUTPUTS, "found.work"])


def wait_until_describing(pid: int) -> None:
    """Until the child has a loader process; it ends after its first batch at the earliest."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(is_loader(found) for child in children(pid) for found in children(child)):
            return
        time.sleep(0.02)
    raise AssertionError("nothing is described")


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_loader(pid: int) -> bool:
    """And none of the short-lived programs that libraries start to look for others."""
    time.sleep(0.1)
    try:
        return b"isc_jobs.matching.describe" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


@pytest.mark.xdist_group("match")
def test_a_killed_command_leaves_no_process_and_goes_on(weights: Path, photos: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"  # more than are described before the signal comes
    for number in range(10):
        shutil.copytree(photos / "references", many / f"references/{number}", copy_function=os.link)
    shutil.copytree(photos / "queries", many / "queries", copy_function=os.link)
    process = subprocess.Popen(command(*match(weights, many, tmp_path / "found.csv")), stdout=subprocess.DEVNULL)
    wait_until_describing(process.pid)
    [child] = children(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 120
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
    [folder] = tmp_path.glob("found.work/*")
    described = [picture.key in Chunks(folder) for picture in list_pictures(many / "references").pictures]
    assert 0 < sum(described) < 600  # kept, and it did not go on alone


@pytest.mark.xdist_group("match")
def test_a_second_run_describes_only_what_is_new(weights: Path, photos: Path, found: Path, tmp_path: Path) -> None:
    shutil.copytree(found / "found.work", tmp_path / "kept")
    before = {path.name for path in tmp_path.glob("kept/*/*.npz")}
    again = isc_jobs(*match(weights, photos, tmp_path / "found.csv", "--work", tmp_path / "kept"))
    assert again.returncode == 0, again.stderr
    assert "references" not in again.stdout.replace("copies of 60 references", "")
    assert {path.name for path in tmp_path.glob("kept/*/*.npz")} == before
    for name in OUTPUTS:
        assert (tmp_path / name).read_bytes() == (found / name).read_bytes()
    more = shutil.copytree(photos / "queries", tmp_path / "queries", copy_function=os.link)
    links = isc_jobs(*match(weights, photos, tmp_path / "found.csv", "--work", tmp_path / "kept", "--queries", more))
    assert "queries  23/23" in links.stdout  # at other paths they are other pictures
    for number, path in enumerate(sorted(PHOTOS.glob("*.jpg"))[1:4]):
        shutil.copy(path, more / f"new-{number}.jpg")
    new = isc_jobs(*match(weights, photos, tmp_path / "found.csv", "--work", tmp_path / "kept", "--queries", more))
    assert "queries  23 of 26 are described already" in new.stdout
    assert len(rows_of(tmp_path / "found.csv")) == 23
    before_scores = {row["query_id"]: row["reference_id"] for row in rows_of(found / "found.csv")}
    after = {row["query_id"]: row["reference_id"] for row in rows_of(tmp_path / "found.csv")}
    assert before_scores.items() <= after.items()
    other = isc_jobs(*match(weights, photos, tmp_path / "f.csv", "--work", tmp_path / "kept", "--input-size", 64,
                            "--threshold", -1))  # fmt: skip
    assert "references  60/60" in other.stdout  # another size is another descriptor


@pytest.mark.xdist_group("match")
def test_one_folder_for_both_finds_duplicates_and_no_picture_itself(
    weights: Path, photos: Path, found: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(photos / "references", tmp_path / "photos")
    first = min(PHOTOS.glob("*.jpg"))
    shutil.copy(folder / first.name, folder / "again.jpg")
    ran = isc_jobs("match", "--weights", weights, "--references", folder, "--queries", folder, "--top-k", 2,
                   "--out", tmp_path / "found.csv", "--threshold", -0.01, "--workers", 0)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "queries" not in ran.stdout  # they are described as references
    rows = rows_of(tmp_path / "found.csv")
    assert len(rows) == 2 * 61
    assert not any(row["query_id"] == row["reference_id"] for row in rows)
    copies = {(row["query_id"], row["reference_id"]): row["score"] for row in rows if row["copy"] == "yes"}
    assert set(copies) == {("again.jpg", first.name), (first.name, "again.jpg")}
    assert "threshold -0.01, as given" in ran.stdout


@pytest.mark.xdist_group("match")
def test_a_ground_truth_sets_the_real_threshold(weights: Path, photos: Path, found: Path, tmp_path: Path) -> None:
    rows = rows_of(found / "found.csv")
    truth = tmp_path / "truth.csv"
    references = {Path(row["reference_id"]).name: row["reference_id"] for row in rows}
    lines = [f"{row['query_id']},{references.get(Path(row['query_id']).name, '')}" for row in rows]
    truth.write_text("\n".join(["query_id,reference_id", "empty.jpg,", *lines]) + "\n")
    arguments = match(weights, photos, tmp_path / "found.csv", "--work", found / "found.work")
    ran = isc_jobs(*arguments, "--ground-truth", truth)
    assert ran.returncode == 0, ran.stderr
    assert "by ground truth" in ran.stdout
    numbers = json.loads((tmp_path / "found.json").read_text())
    copies = [is_right(row) for row in rows_of(tmp_path / "found.csv") if row["copy"] == "yes"]
    assert numbers["precision"] == pytest.approx(sum(copies) / len(copies))
    assert numbers["precision"] >= 0.9
    assert numbers["recall"] == pytest.approx(sum(copies) / sum(not line.endswith(",") for line in lines))
    truth.write_text("query_id,reference_id\nabsent.jpg,arc-de-triomphe.jpg\n")
    wrong = isc_jobs(*arguments, "--ground-truth", truth)
    assert (wrong.returncode, "names 1 queries that are no file: absent.jpg" in wrong.stderr) == (65, True)


@pytest.mark.xdist_group("match")
def test_negatives_are_subtracted(weights: Path, photos: Path, found: Path, tmp_path: Path) -> None:
    negatives = tmp_path / "negatives"
    negatives.mkdir()
    for path in sorted(PHOTOS.glob("*.jpg"))[70:100]:
        shutil.copy(path, negatives)
    arguments = match(weights, photos, tmp_path / "found.csv", "--work", found / "found.work")
    ran = isc_jobs(*arguments, "--negatives", negatives)
    assert ran.returncode == 0, ran.stderr
    assert "negatives  30/30" in ran.stdout
    rows = rows_of(tmp_path / "found.csv")
    assert sum(map(is_right, rows)) >= 15
    plain = {row["query_id"]: float(row["score"]) for row in rows_of(found / "found.csv")}
    assert all(float(row["score"]) != plain[row["query_id"]] for row in rows)


@pytest.mark.xdist_group("match")
@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        ({"--queries": "empty"}, 64, "holds no pictures"),
        ({"--references": "few"}, 64, "1 references are too few to estimate"),
        ({"--references": "absent"}, 64, "is not there: give a folder"),
        ({"--queries": "bad"}, 65, "none of 1 queries can be used; the first is x.jpg: empty file"),
        ({"--out": "found.txt"}, 64, "ends in .csv"),
        ({"--out": "absent/found.csv"}, 64, "is not a folder: make it first"),
        ({"--weights": "few/x.png"}, 65, "is no PyTorch checkpoint and no safetensors file"),
        ({"--weights": "absent"}, 64, "no such file"),
        ({"--arch": "resnet18"}, 65, "do not load: into resnet18: "),
        ({"--weights": "few"}, 64, "a folder was found, expected a file; it holds none that ends in .pth.tar"),
        ({"--threshold": "nan"}, 64, "'nan' is not finite"),
        ({"--threshold": "high"}, 64, "'high' is no number"),
        ({"--threshold": "0.9"}, 64, "scores are -(squared distance), 0 at most"),
        ({"--input-size": "8"}, 64, "no whole number from 32 on"),
    ],
)
def test_a_mistake_is_one_sentence(
    weights: Path, photos: Path, tmp_path: Path, change: dict[str, str], code: int, sentence: str
) -> None:
    for name in ("empty", "few", "bad"):
        (tmp_path / name).mkdir()
    (tmp_path / "bad/x.jpg").touch()
    Image.new("RGB", (9, 9)).save(tmp_path / "few/x.png")
    values = {"--weights": weights, "--references": photos / "references", "--queries": photos / "queries",
              "--out": tmp_path / "found.csv", "--workers": "0", "--input-size": "32"}  # fmt: skip
    given = {
        name: value if value.isdecimal() or name in {"--arch", "--threshold"} else tmp_path / value
        for name, value in change.items()
    }
    ran = isc_jobs("match", *(part for pair in (values | given).items() for part in pair))
    assert ran.returncode == code, ran.stderr
    assert sentence in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "found.csv").exists()


@pytest.mark.xdist_group("match")
def test_an_index_of_a_folder_is_added_to_and_asked(weights: Path, photos: Path, tmp_path: Path) -> None:
    folder, some = tmp_path / "index", tmp_path / "some"
    shutil.copytree(photos / "references", some)
    later = sorted((some / "more").iterdir())
    (tmp_path / "later").mkdir()
    for path in later:
        path.rename(tmp_path / "later" / path.name)
    (some / "bad.jpg").write_text("no picture")
    built = isc_jobs("index", "build", folder, "--weights", weights, "--pictures", some, "--workers", 0)
    assert built.returncode == 0, built.stderr
    assert f"1 picture could not be used: {some}/bad.jpg: no known image format" in built.stdout
    assert "30 pictures, exact" in built.stdout
    twice = isc_jobs("index", "build", folder, "--weights", weights, "--pictures", some, "--workers", 0)
    assert (twice.returncode, "is an index already" in twice.stderr, twice.stdout) == (64, True, "")
    assert not (folder / "work").exists()  # nothing was described first
    added = isc_jobs("index", "add", folder, "--pictures", tmp_path / "later", "--workers", 0)
    assert "60 pictures, exact" in added.stdout
    again = isc_jobs("index", "add", folder, "--pictures", tmp_path / "later")
    assert again.stdout == "30 of 30 pictures are in the index already\n"
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "index.json", "names-2.jsonl", "rows-2.faiss", "weights.pth.tar",
    }  # fmt: skip

    asked = photos / "queries/deep/er"
    page = tmp_path / "found.html"
    said = isc_jobs("index", "query", folder, asked, "--top-k", 2, "--json", "--html", page, "--workers", 0)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert len(found) == 2 * 16
    right = [Path(row["query"]).name == Path(row["name"]).name for row in found if row["rank"] == 1]
    assert sum(right) >= 15
    assert all(a["score"] >= b["score"] for a, b in zip(found[::2], found[1::2], strict=True))
    assert page.read_text().count("data:image/jpeg;base64,") == 2 * 2 * 16
    near = isc_jobs("index", "query", folder, min(asked.iterdir()), "--threshold", -0.001, "--workers", 0)
    assert (near.returncode, near.stdout.count("\n") <= 2) == (0, True)
    rows = tmp_path / "rows.h5"
    with h5py.File(rows, "w") as file:
        file["reference"], file["reference_ids"] = np.eye(4, 256, dtype=np.float32), np.array([b"a", b"b", b"c", b"d"])
    given = isc_jobs("index", "build", tmp_path / "given", "--descriptors", rows, "--weights", weights)
    assert given.returncode == 0, given.stderr
    asked_too = isc_jobs("index", "query", tmp_path / "given", min(asked.iterdir()), "--workers", 0)
    assert (asked_too.returncode, len(asked_too.stdout.splitlines())) == (0, 4)
    alone = isc_jobs("index", "build", tmp_path / "alone", "--descriptors", rows)
    assert alone.returncode == 0
    mute = isc_jobs("index", "query", tmp_path / "alone", min(asked.iterdir()))
    assert (mute.returncode, "build it with --descriptors and the --weights" in mute.stderr) == (64, True)
    bad = isc_jobs("index", "query", folder, photos / "queries/empty.jpg")
    assert (bad.returncode, "empty.jpg: empty file" in bad.stderr) == (65, True)
    partly = isc_jobs("index", "query", folder, photos / "queries/empty.jpg", min(asked.iterdir()), "--top-k", 1)
    assert (partly.returncode, len(partly.stdout.splitlines())) == (0, 1)
    assert "left out: " in partly.stderr
    assert "empty.jpg: empty file" in partly.stderr
    nowhere = isc_jobs("index", "build", "/proc/none", "--weights", folder / "weights.pth.tar", "--pictures", asked)
    assert (nowhere.returncode, len(nowhere.stderr.splitlines())) == (64, 1)
    assert nowhere.stderr.startswith("isc-jobs: /proc/none")
    (folder / "weights.pth.tar").write_bytes(b"PK")
    other = isc_jobs("index", "query", folder, asked)
    assert (other.returncode, "is not the file that the index was built with" in other.stderr) == (65, True)
