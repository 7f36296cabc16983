"""The download stage: odd files one by one, a killed attempt, wrong ground truth; run as the stage runs."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from download_stage import BIG, add_large, contents, context, killed_at, make_source, output, picture, run
from PIL import Image

from isc_jobs.spec.errors import DataError, Stopped, UsageError
from isc_jobs.stages.download import body
from isc_jobs.stages.runner import Context
from isc_jobs.store.listing import keep_listing
from isc_jobs.vision.decode import decode_rgb
from isc_jobs.vision.shards import ShardSet


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


def bad_rows(ctx: Context) -> dict[str, str]:
    with output(ctx).path("bad_images.csv").open(newline="") as file:
        return {row["key"]: row["reason"] for row in csv.DictReader(file)}


def test_bytes_are_packed_unchanged_and_sorted_by_id(tmp_path: Path, source: Path) -> None:
    ctx = context(tmp_path, source)
    summary = run(ctx)
    assert summary == {"bad": 0, "ignored": 0, "train": 2, "reference": 3, "query_phase1": 2, "query_phase2": 1}
    references = ShardSet(output(ctx), "reference")
    assert references.ids == ["R000000", "R000001", "R000002"]
    assert [references.read(n) for n in range(3)] == [picture(n) for n in range(3)]
    manifest = json.loads(output(ctx).path("manifest.json").read_text())
    assert manifest["sets"]["train"] == {"shards": ["shards/train-00000.tar"], "count": 2}
    assert not [name for name in output(ctx).names() if name.startswith("ground_truth")]  # the source has none


ODD: dict[str, tuple[str, bytes, str | None]] = {
    "wrong extension": ("a.jpg", picture(kind="PNG"), None),
    "upper-case extension": ("a.JPG", picture(kind="JPEG"), None),
    "CMYK": ("a.jpg", picture(kind="JPEG", mode="CMYK"), None),
    "palette": ("a.png", picture(mode="P", transparency=3), None),
    "alpha": ("a.png", picture(mode="RGBA"), None),
    "grey with alpha": ("a.png", picture(mode="LA"), None),
    "16 bits": ("a.png", picture(mode="I;16") if "I;16" in Image.MODES else picture(mode="I"), None),
    "one bit": ("a.tiff", picture(kind="TIFF", mode="1"), None),
    "animated": ("a.gif", picture(kind="GIF", save_all=True, append_images=[Image.new("RGB", (24, 24))]), None),
    "one pixel": ("a.webp", picture(kind="WEBP", side=1), None),
    "zero bytes": ("a.jpg", b"", "empty file"),
    "no picture": ("a.jpg", b"<html>access denied</html>", "no known image format"),
    "cut": ("a.jpg", picture(kind="JPEG", side=64)[:900], "cannot be decoded"),
    "bomb": ("a.png", picture(side=101), "101x101 is more than 10000 pixels"),
    "PostScript": ("a.jpg", picture(kind="EPS"), "format EPS is none of"),
}


@pytest.mark.parametrize(("name", "data", "reason"), ODD.values(), ids=list(ODD))
def test_an_odd_file_is_packed_or_listed_as_bad(
    tmp_path: Path, source: Path, name: str, data: bytes, reason: str | None
) -> None:
    (source / "train_images" / name).write_bytes(data)
    ctx = context(tmp_path, source, max_bad_share=0.2)
    summary = run(ctx)
    assert summary is not None
    train = ShardSet(output(ctx), "train")
    if reason is None:
        assert (summary["bad"], train.ids) == (0, ["T000000", "T000001", "a"])
        assert train.read(2) == data
        assert decode_rgb(train.read(2)).mode == "RGB"
    else:
        assert (summary["bad"], train.ids) == (1, ["T000000", "T000001"])
        assert reason in bad_rows(ctx)[f"train_images/{name}"]


def test_other_and_hidden_files_are_ignored_and_counted(tmp_path: Path, source: Path) -> None:
    for name in (".DS_Store", "._T000000.png", "notes.txt", "Thumbs.db"):
        (source / "train_images" / name).write_bytes(b"x")
    (source / "README.md").write_text("outside the sets' folders")
    summary = run(context(tmp_path, source))
    assert summary is not None
    assert summary["ignored"] == 4


def test_bad_pictures_are_named_and_counted_in_the_log(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "train_images/T000007.jpg").write_bytes(b"")  # the last of its set
    run(context(tmp_path, source, max_bad_share=0.2))
    said = capsys.readouterr().out
    assert "download  left out: train_images/T000007.jpg: empty file\n" in said
    assert "  bad 1\n" in said


def test_too_many_bad_pictures_end_the_stage_with_count_and_examples(tmp_path: Path, source: Path) -> None:
    for name in ("T000007.jpg", "T000008.jpg"):
        (source / "train_images" / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 10 pictures are bad.*10.00%.*train_images/T000007.jpg: empty file"):
        body(context(tmp_path, source, max_bad_share=0.1))


def test_one_id_twice_in_a_set_is_refused(tmp_path: Path, source: Path) -> None:
    (source / "train_images/T000000.jpg").write_bytes(picture(kind="JPEG"))
    with pytest.raises(DataError, match=r"id T000000 is there twice: train_images/T000000.jpg and .*png"):
        body(context(tmp_path, source))


@pytest.mark.parametrize("name", ["a b.png", "ä.png", "a'b.png", "-a.png", f"{'a' * 65}.png"])
def test_an_unsafe_id_is_refused(tmp_path: Path, source: Path, name: str) -> None:
    (source / "train_images" / name).write_bytes(picture())
    with pytest.raises(DataError, match="an id may hold letters"):
        body(context(tmp_path, source))


def test_a_source_that_is_missing_or_holds_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent is not there: give one that holds train_images/"):
        body(context(tmp_path, tmp_path / "absent"))
    (tmp_path / "empty/train_images").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds no pictures in train_images/"):
        body(context(tmp_path, tmp_path / "empty"))


@pytest.fixture
def large(source: Path) -> Path:
    return add_large(source)


def keep_planned(ctx: Context, tmp_path: Path) -> str:
    """Leave the planned listing in the store, as the controller does; its digest."""
    digest = str(ctx.spec.parameters["source_digest"])
    keep_listing(ctx.store, digest, tmp_path / "planned.tsv.gz")
    return digest


def test_a_killed_attempt_is_taken_up_and_ends_the_same_to_the_bit(tmp_path: Path, large: Path) -> None:
    whole = context(tmp_path / "whole", large, **BIG)
    run(whole)
    assert len(json.loads(contents(whole)["manifest.json"])["sets"]["train"]["shards"]) > 2
    first = context(tmp_path, large, 1, **BIG)
    digest = keep_planned(first, tmp_path)
    killed_at(first, 15)
    kept = sorted((tmp_path / "store/checkpoints").rglob("*.json"))
    assert len(kept) >= 2
    for number in (10, 11):  # of the first shard: it must not be read again
        (large / f"train_images/T0000{number}.png").write_bytes(b"changed")
    second = context(tmp_path, large, 2, digest=digest, **BIG)
    run(second)
    assert contents(second) == contents(whole)


@pytest.mark.parametrize(
    "damage", ["gone tar", "gone csv", "cut tar", "flipped tar", "no JSON", "empty JSON", "no marker"]
)
def test_a_damaged_kept_shard_is_packed_anew(
    tmp_path: Path, large: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = context(tmp_path / "whole", large, **BIG)
    run(whole)
    killed_at(context(tmp_path, large, 1, **BIG), 15)
    tar = next((tmp_path / "store/artifacts").rglob("train-00000.tar"))
    marker = next((tmp_path / "store/checkpoints").rglob("train-00000.json"))
    if damage.startswith("gone"):
        (tar if damage == "gone tar" else tar.with_suffix(".csv")).unlink()
    elif damage == "cut tar":
        tar.write_bytes(tar.read_bytes()[:-1])
    elif damage == "flipped tar":
        tar.write_bytes(bytes([tar.read_bytes()[0] ^ 1]) + tar.read_bytes()[1:])
    elif damage == "no marker":
        marker.unlink()
    else:
        marker.write_text("{" if damage == "no JSON" else "{}")
    capsys.readouterr()
    second = context(tmp_path, large, 2, **BIG)
    run(second)
    assert contents(second) == contents(whole)
    said = "train-00000 of an earlier attempt is damaged and made anew" in capsys.readouterr().out
    assert said == (damage != "no marker")


def test_a_request_to_stop_loses_no_finished_shard(tmp_path: Path, large: Path) -> None:
    whole = context(tmp_path / "whole", large, **BIG)
    run(whole)
    ctx = context(tmp_path, large, **BIG)
    ctx.progress = lambda done, *_, **__: os.kill(os.getpid(), signal.SIGTERM) if done >= 15 else None
    before = signal.signal(signal.SIGTERM, ctx.request_stop)
    try:
        with pytest.raises(Stopped):
            body(ctx)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list((tmp_path / "store/checkpoints").rglob("*.json"))
    again = context(tmp_path, large, 2, **BIG)
    run(again)
    assert contents(again) == contents(whole)


def truth(source: Path, *rows: str) -> None:
    (source / "ground_truth_phase1.csv").write_text("\n".join(("query_id,reference_id", *rows)) + "\n")


def test_the_ground_truth_is_copied_without_rows_of_bad_pictures(tmp_path: Path, source: Path) -> None:
    (source / "query_images/Q00001.png").write_bytes(b"")
    (source / "train_images/R000002.png").write_bytes(b"")  # a bad training picture of a reference's name
    truth(source, "Q00000,R000002", "Q00001,R000001", "Q00000,", "", "")  # editors leave empty lines at the end
    ctx = context(tmp_path, source, max_bad_share=0.5)
    run(ctx)
    copied = contents(ctx)["ground_truth_phase1.csv"].decode()
    assert copied == "query_id,reference_id\nQ00000,R000002\nQ00000,\n"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["Q00000,R000000", "Q00009,"], "line 3: query 'Q00009' is not among the 2"),
        (["Q00000,R999999"], "line 2: reference 'R999999' is not among the 3"),
        (["Q00000,R000000", "Q00000,R000000"], "line 3 repeats line 2: Q00000,R000000"),
        (["Q00000"], "line 2: expected query_id,reference_id, found 'Q00000'"),
    ],
)
def test_a_wrong_ground_truth_names_its_line(tmp_path: Path, source: Path, rows: list[str], sentence: str) -> None:
    truth(source, *rows)
    with pytest.raises(DataError, match=sentence):
        body(context(tmp_path, source))


def test_a_wrong_header_is_shown(tmp_path: Path, source: Path) -> None:
    (source / "ground_truth_phase2.csv").write_text("query,reference\nQ50000,R000000\n")
    with pytest.raises(DataError, match="expected the header query_id,reference_id, found 'query,reference'"):
        body(context(tmp_path, source))
