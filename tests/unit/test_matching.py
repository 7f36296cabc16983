"""The parts of isc-jobs match: listing, kept descriptors, search by blocks, threshold, files."""

import csv
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isc_jobs.matching.calibration import Sampled, choose_sample
from isc_jobs.matching.chunks import Chunks, Matrix
from isc_jobs.matching.describing import Answer
from isc_jobs.matching.found import Found, Threshold, write_found
from isc_jobs.matching.match import _Search, _Set
from isc_jobs.matching.pictures import Listing, Picture, list_pictures
from isc_jobs.matching.search import nearest
from isc_jobs.retrieval.metrics import Scores, score_matches
from isc_jobs.retrieval.rows import normalised
from isc_jobs.retrieval.search import l2_neighbours
from isc_jobs.retrieval.submission import GroundTruth, Matches
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.profile import load_settings

MATCHING = load_settings("isc21").matching
NONE = np.zeros(0, np.int64)


def unit_rows(count: int, seed: int = 0) -> Matrix:
    return normalised(np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32))


def picture(path: Path, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), "teal").save(path)


def test_pictures_are_listed_through_all_folders_by_their_paths_within(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/b/c.webp"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    listing = list_pictures(tmp_path)
    assert [found.id for found in listing.pictures] == ["a/b/c.webp", "a/z.png", "b.JPG"]
    assert listing.unread == [("dangling.jpg", "cannot be read: No such file or directory")]


def test_a_file_name_that_is_no_utf8_is_a_picture_like_others(tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    (tmp_path / "x.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    [found] = list_pictures(tmp_path).pictures
    assert len(found.key) == 32
    found_pair = found_of(Matches([found.id], [found.id], np.zeros(1)), [found])
    assert list(write_found(tmp_path / "m.csv", found_pair, MATCHING))
    assert (tmp_path / "m.csv").read_bytes().splitlines()[1] == b"\xff.png,\xff.png,0,no"


@pytest.mark.parametrize("change", ["size", "time", "name"])
def test_a_changed_file_is_another_picture(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x.png"
    picture(path)
    before = list_pictures(tmp_path).pictures[0].key
    assert list_pictures(tmp_path).pictures[0].key == before
    stat = path.stat()
    if change == "size":
        path.write_bytes(path.read_bytes() + b"x")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "time":
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    else:
        path.rename(tmp_path / "y.png")
    assert list_pictures(tmp_path).pictures[0].key != before


def test_a_folder_without_pictures_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "x.txt").touch()
    with pytest.raises(UsageError, match="holds no pictures: expected files that end in"):
        list_pictures(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        list_pictures(tmp_path / "x.txt")


KEYS = [f"{number:032x}" for number in range(10)]


def test_kept_descriptors_are_there_again_in_any_order(tmp_path: Path) -> None:
    rows = unit_rows(9)
    chunks = Chunks(tmp_path)
    chunks.keep(KEYS[:5], rows[:5], {KEYS[9]: "empty file"})
    chunks.keep(KEYS[5:9], rows[5:], {})
    for there in (chunks, Chunks(tmp_path)):
        assert all(key in there for key in KEYS)
        assert (there.has_row(KEYS[9]), there.bad) == (False, {KEYS[9]: "empty file"})
        order = [7, 0, 8, 3]
        out = np.zeros((4, 16), np.float32)
        there.gather([KEYS[place] for place in order], out)
        np.testing.assert_array_equal(out, rows[order])
    assert "f" * 32 not in chunks


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_named_and_described_again(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks = Chunks(tmp_path)
    chunks.keep(KEYS[:5], unit_rows(5), {})
    [path] = tmp_path.glob("*.npz")
    chunks.keep(KEYS[5:], unit_rows(5), {})
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[data.index(unit_rows(5).tobytes()[:16])] ^= 1
    other = b"PK\x03\x04" + bytes(50)
    path.write_bytes({"cut": bytes(data[:-50]), "flipped": bytes(data), "empty": b"", "other": other}[damage])
    again = Chunks(tmp_path)
    assert [key in again for key in (KEYS[0], KEYS[5])] == [False, True]
    assert "is damaged and is made again" in capsys.readouterr().out
    assert not path.exists()


@pytest.mark.parametrize("rows_at_once", [1, 7, 40, 1000])
def test_search_by_blocks_finds_what_search_of_all_finds(rows_at_once: int) -> None:
    queries, references = unit_rows(40), unit_rows(100, seed=1)
    references[50:55] = references[3]  # equal ones, across blocks
    expected = l2_neighbours(queries, references, 9)
    seen: list[tuple[int, int]] = []
    scores, positions = nearest(
        queries, references, 9, left_out=NONE, own=np.full(40, -1), report=lambda *done: seen.append(done),
        rows_at_once=rows_at_once,
    )  # fmt: skip
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
    np.testing.assert_array_equal(np.sort(positions), np.sort(expected.positions))
    assert seen[-1] == (len(seen), len(seen))


def test_neither_a_query_itself_nor_what_is_left_out_is_found() -> None:
    rows = unit_rows(30)
    rows[20] = rows[4]
    own = np.arange(30)
    scores, positions = nearest(rows, rows, 3, left_out=np.array([7]), own=own, report=lambda *_: None, rows_at_once=8)
    assert not (positions == own[:, None]).any()
    assert not (positions == 7).any()
    assert (positions[4, 0], positions[20, 0], scores[4, 0]) == (20, 4, pytest.approx(0, abs=1e-6))
    scores, positions = nearest(rows[:3], rows[:2], 5, left_out=NONE, own=own[:3], report=lambda *_: None)
    assert (positions >= 0).sum(axis=1).tolist() == [1, 1, 2]
    assert (np.isneginf(scores) == (positions < 0)).all()


def pictures_named(*names: str) -> list[Picture]:
    return [Picture(name, f"/photos/{name}", 1, 1) for name in names]


def test_the_sample_is_of_half_strangers_and_hardly_changes_with_new_references() -> None:
    pictures = pictures_named(*(f"{number}.jpg" for number in range(1000)))
    sample = choose_sample(pictures, 300)
    assert (len(sample), sum(one.stays for one in sample)) == (300, 150)
    assert all(one.other != one.picture for one in sample)
    assert choose_sample(pictures[::-1], 300) == sample
    more = choose_sample([*pictures, *pictures_named("new.jpg")], 300)
    assert len({one.picture for one in more} & {one.picture for one in sample}) >= 299
    assert len({one.key for one in sample}) == 300


def test_the_edits_of_a_folder_are_the_same_wherever_it_is() -> None:
    here, there = (
        [Picture(f"{n}.jpg", f"{root}/{n}.jpg", 1, time) for n in range(20)] for root, time in (("a", 1), ("b", 2))
    )
    sampled, elsewhere = choose_sample(here, 20), choose_sample(there, 20)
    assert [one.seed for one in sampled] == [one.seed for one in elsewhere]
    assert len({one.seed for one in sampled}) == 20
    assert not {one.key for one in sampled} & {one.key for one in elsewhere}  # descriptors are kept by file


def test_the_threshold_is_the_lowest_score_that_keeps_the_precision() -> None:
    right = [True] * 9 + [False] + [True] * 9 + [False] * 3 + [True]
    matches = Matches(
        [f"q{n}" for n in range(len(right))], ["a" if good else "b" for good in right], -np.arange(len(right)) / 10
    )
    truth = GroundTruth(frozenset(matches.queries), frozenset((f"q{n}", "a") for n in range(len(right))))
    curve = score_matches(matches, truth)
    place = curve.lowest(0.9)
    assert place == 19  # 18 of 20
    assert curve.scores[place] == pytest.approx(-1.9)
    assert curve.recall[place] == pytest.approx(18 / 23)
    assert curve.lowest(0.99) == 8
    wrong_first = Matches(["q1", "q0", "other"], ["a", "b", "a"], np.array([-0.5, -0.5, 0.0]))
    assert score_matches(wrong_first, truth).lowest(0.9) is None  # among equals the wrong one comes first
    assert score_matches(wrong_first, truth).scores.tolist() == [-0.5, -0.5]  # the other is no query of the truth


def found_of(matches: Matches, pictures: list[Picture], threshold: float | None = None, bad: int = 0) -> Found:
    named = {found.id: found for found in pictures}
    curve = Scores(0.75, 0.5, np.array([-0.1, -0.2]), np.array([1.0, 0.5]), np.array([0.5, 0.5]), 2)
    return Found(
        matches=matches, curve=curve, threshold=Threshold(threshold, "ground truth", 1.0, 0.5, 1, 2),
        pictures={"queries": named, "references": named}, bad=[("queries", "<b>.jpg", "empty file")] * bad, model={},
    )  # fmt: skip


def test_files_show_matches_threshold_curve_and_bad_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "<i>b.png", "c,c.png"):
        picture(tmp_path / "photos" / name)
    pictures = list_pictures(tmp_path / "photos").pictures
    matches = Matches(["a.png", "<i>b.png", "c,c.png"], ["<i>b.png", "a.png", "a.png"], np.array([-0.1, -0.1, -0.3]))
    out = tmp_path / "m.csv"
    lines = list(write_found(out, found_of(matches, pictures, -0.1, bad=60), MATCHING))
    with out.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["query_id", "reference_id", "score", "copy"], ["a.png", "<i>b.png", "-0.1", "yes"],
            ["<i>b.png", "a.png", "-0.1", "yes"], ["c,c.png", "a.png", "-0.3", "no"],
        ]  # fmt: skip
    assert (tmp_path / "m.bad.csv").read_text().splitlines()[:2] == ["set,file,reason", "queries,<b>.jpg,empty file"]
    numbers = json.loads((tmp_path / "m.json").read_text())
    assert (numbers["threshold"], numbers["copies"], numbers["pairs"]) == (-0.1, 2, 3)
    assert numbers["curve"][0] == {"score": -0.1, "precision": 1.0, "recall": 0.5}
    html = (tmp_path / "m.html").read_text()
    assert html.count("<figcaption>") == 2  # the pair that is there both ways round is shown once; and one not a copy
    assert "<i>" not in html
    assert "<h2>Surest matches</h2>" in html
    assert "<h2>Just below the threshold</h2>" in html
    assert "the first 50 of 60" in html
    assert 'class="c4 dashed"' in html  # the threshold in the chart
    assert "60 pictures could not be used" in "\n".join(lines)
    assert (
        "by ground truth; of 2 whose original is there 1 are found down to it, of 1 pair found 100% are right"
        in lines[0]
    )
    assert lines[0].endswith("; so few tell little: look at the pairs about it")
    assert "3 queries searched among 3 references" in html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bad.csv", "m.csv", "m.html", "m.json", "photos"]


def test_a_bad_picture_is_not_counted_as_searched(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "photos" / name)
    found = found_of(Matches(["a.png"], ["b.png"], np.array([-0.3])), list_pictures(tmp_path / "photos").pictures, -0.1)
    list(write_found(tmp_path / "m.csv", replace(found, bad=[("queries", "b.png", "empty file")]), MATCHING))
    assert "1 query searched among 2 references" in (tmp_path / "m.html").read_text()


@pytest.mark.parametrize(("right", "pairs"), [(10, 10), (6, 6), (90, 100), (1, 5), (270, 300)])
def test_a_share_of_few_pairs_is_said_to_be_unsure(right: int, pairs: int) -> None:
    """Were the bound true, so many right ones or more would be found one time in twenty."""
    bound = Threshold(-0.1, "ground truth", right / pairs, 0.5, pairs).least_precision
    assert bound is not None
    likely = sum(math.comb(pairs, n) * bound**n * (1 - bound) ** (pairs - n) for n in range(right, pairs + 1))
    assert likely == pytest.approx(0.05)


def test_without_a_threshold_nothing_is_called_a_copy_and_that_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    matches = Matches(["a.png"], ["a.png"], np.zeros(1))
    lines = list(write_found(tmp_path / "m.csv", found_of(matches, list_pictures(tmp_path).pictures), MATCHING))
    assert "no threshold: by ground truth, at no score is a share of 0.9 right" in lines[0]
    assert (tmp_path / "m.csv").read_text().splitlines()[1] == "a.png,a.png,0,no"


def test_a_picture_that_has_gone_is_left_out_of_the_page(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    pictures = [*list_pictures(tmp_path).pictures, *pictures_named("gone.png")]
    matches = Matches(["a.png", "gone.png"], ["a.png", "a.png"], np.array([-0.1, -0.1]))
    list(write_found(tmp_path / "m.csv", found_of(matches, pictures, -0.5), MATCHING))
    html = (tmp_path / "m.html").read_text()
    assert "query picture a.png" in html
    assert "gone.png" not in html


def searched(tmp_path: Path, count: int, *, bad: int = 0) -> tuple[_Search, list[Sampled]]:
    """References with random rows, and edited copies with the same rows; the last references are bad."""
    pictures = pictures_named(*(f"{number:03d}.jpg" for number in range(count)))
    rows = unit_rows(count)
    sample = choose_sample(pictures, 100)
    by_id = {found.id: row for found, row in zip(pictures, rows, strict=True)}
    copies = np.stack([by_id[one.picture.id] for one in sample])
    chunks = Chunks(tmp_path)
    good = count - bad
    reasons = {found.key: "empty file" for found in pictures[good:]}
    chunks.keep([found.key for found in pictures[:good]], rows[:good], reasons)
    chunks.keep([one.key for one in sample], copies, {})
    listings = {name: Listing(pictures, []) for name in ("references", "queries")}
    return _Search(tmp_path, Answer(str(tmp_path), {"dimensions": 16}, {}), listings), sample


def test_strangers_are_no_references_while_the_threshold_is_estimated(tmp_path: Path) -> None:
    search, sample = searched(tmp_path, 200)
    curve = search.estimate(sample)
    assert curve is not None
    place = curve.lowest(1.0)
    assert place == 49  # every copy of one that stays is surest, every stranger's answer is less sure
    assert (curve.recall[place], curve.scores[place]) == (1.0, pytest.approx(0, abs=1e-6))
    assert curve.scores[50] < -0.01
    assert curve.precision[-1] == 0.5


def test_an_estimate_does_without_bad_pictures(tmp_path: Path) -> None:
    search, sample = searched(tmp_path, 60, bad=30)
    curve = search.estimate(sample)
    assert curve is not None
    assert curve.recall[-1] == 1.0
    assert len(curve.scores) < 60
    assert [bad[0] for bad in search.bad].count("references") == 30
    assert search.copies(1).scores.max() < -0.01  # no reference is its own copy


def test_subtraction_moves_references_queries_and_edited_copies_alike(tmp_path: Path) -> None:
    search, sample = searched(tmp_path, 200)
    before = np.array(search._sets["references"].rows)
    search._sets["negatives"] = _Set(pictures_named("n.jpg"), unit_rows(40, seed=5))
    search.subtract(load_settings("isc21").postprocess)
    references, queries = search._sets["references"].rows, search._sets["queries"].rows
    assert (np.abs(references - before).max(axis=1) > 1e-3).all()
    np.testing.assert_array_equal(queries, references)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-6)
    curve = search.estimate(sample)
    assert curve is not None
    np.testing.assert_allclose(curve.scores[:50], 0, atol=1e-6)  # a copy equal to its reference stays so
