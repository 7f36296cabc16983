"""Submission files: what is written can be read, and what is wrong is refused with its value."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from isc_jobs.retrieval import submission
from isc_jobs.retrieval.metrics import evaluate_files
from isc_jobs.retrieval.search import Neighbours, l2_neighbours
from isc_jobs.retrieval.submission import (
    Descriptors,
    read_descriptors,
    read_ground_truth,
    read_matches,
    write_descriptors,
    write_matches,
)  # fmt: skip
from isc_jobs.spec.errors import DataError, UsageError


def descriptors(ids: list[str], dimensions: int = 4) -> Descriptors:
    rows = np.arange(len(ids) * dimensions, dtype=np.float32).reshape(len(ids), dimensions)
    return Descriptors(ids, rows)


def test_rows_are_written_sorted_by_id_with_the_challenge_s_widths(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write_descriptors(path, descriptors(["Q00002", "Q00001"]), descriptors(["R000001"]))
    with h5py.File(path) as file:
        assert (file["query_ids"].dtype, file["reference_ids"].dtype) == (np.dtype("S6"), np.dtype("S7"))
    found = read_descriptors(path, "query")
    assert found.ids == ["Q00001", "Q00002"]
    assert found.rows[:, 0].tolist() == [4.0, 0.0]


def test_long_ids_are_kept_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write_descriptors(path, descriptors(["a-very-long-name"]), descriptors(["größer"]))
    assert read_descriptors(path, "query").ids == ["a-very-long-name"]
    assert read_descriptors(path, "reference").ids == ["größer"]


def test_wrong_descriptors_are_neither_written_nor_read(tmp_path: Path) -> None:
    good = descriptors(["R1"])
    for bad, sentence in (
        (descriptors(["Q1", "Q2", "Q1"]), "1 ids again, the first is 'Q1'"),
        (Descriptors(["Q1"], np.full((1, 4), np.nan, np.float32)), "NaN"),
        (Descriptors(["Q1", "Q2"], good.rows), "with 2 ids, expected float32"),
    ):
        with pytest.raises(DataError, match=sentence):
            write_descriptors(tmp_path / "w.h5", bad, good)


@pytest.mark.parametrize(
    ("rows", "ids", "sentence"),
    [
        (np.zeros((1, 4)), np.array([b"Q1"]), "float64"),
        (np.zeros((1, 4), np.float32), np.array([7]), "expected strings"),
        (np.zeros((2, 4), np.float32), np.array([b"Q1", b"Q1"]), "again, the first is 'Q1'"),
        (np.full((1, 4), np.inf, np.float32), np.array([b"Q1"]), "infinity"),
        (np.zeros((1, 4), np.float32), np.array([b"\xff"]), "no HDF5 descriptor file"),
    ],
)
def test_wrong_datasets_are_refused(
    tmp_path: Path, rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    ids: np.ndarray[tuple[int, ...], np.dtype[np.bytes_]], sentence: str,
) -> None:  # fmt: skip
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file["query"], file["query_ids"] = rows, ids
    with pytest.raises(DataError, match=sentence):
        read_descriptors(path, "query")
    with pytest.raises(DataError, match="expected reference and reference_ids"):
        read_descriptors(path, "reference")


def test_a_file_that_is_absent_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_descriptors(tmp_path / "none.h5", "query")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(DataError, match="no HDF5"):
        read_descriptors(tmp_path / "text.h5", "query")


def test_more_than_256_dimensions_score_nothing(tmp_path: Path) -> None:
    write_descriptors(tmp_path / "s.h5", descriptors(["Q1"], 257), descriptors(["R1"], 257))
    (tmp_path / "truth.csv").write_text("query_id,reference_id\nQ1,R1\n")
    with pytest.raises(DataError, match=r"257 dimensions.*at most 256"):
        evaluate_files(tmp_path / "s.h5", tmp_path / "truth.csv")


def test_too_many_matches_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "MAX_ROWS", 2)
    path = tmp_path / "m.csv"
    path.write_text("query_id,reference_id,score\nQ1,R1,1\nQ1,R2,1\n")
    assert read_matches(path).scores.tolist() == [1.0, 1.0]
    with path.open("a") as file:
        file.write("Q1,R3,1\n")
    with pytest.raises(DataError, match="3 rows, at most 2"):
        read_matches(path)


def test_of_too_many_matches_the_surest_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "MAX_ROWS", 3)
    found = Neighbours(np.array([[3, 1], [9, 2]], np.float32), np.array([[0, 1], [1, 0]]))
    write_matches(tmp_path / "m.csv", ["Q1", "Q2"], ["R1", "R2"], found)
    lines = (tmp_path / "m.csv").read_text().splitlines()
    assert lines == ["query_id,reference_id,score", "Q1,R1,3.0", "Q2,R2,9.0", "Q2,R1,2.0"]
    assert len(read_matches(tmp_path / "m.csv").queries) == 3


def test_a_full_challenge_file_is_cut_to_the_rows_allowed_and_can_be_evaluated(tmp_path: Path) -> None:
    queries, references = [f"Q{i:05d}" for i in range(50_010)], [f"R{i:06d}" for i in range(10)]
    scores = -np.random.default_rng(0).random((50_010, 10))
    scores[7] = 0
    found = Neighbours(scores, np.tile(np.arange(10), (50_010, 1)))
    write_matches(tmp_path / "m.csv", queries, references, found)
    (tmp_path / "truth.csv").write_text("query_id,reference_id\nQ00007,R000000\n")
    read = read_matches(tmp_path / "m.csv")
    assert len(read.queries) == 500_000
    np.testing.assert_array_equal(np.sort(read.scores), np.sort(scores, axis=None)[100:])  # to the last digit
    assert evaluate_files(tmp_path / "m.csv", tmp_path / "truth.csv").uap == pytest.approx(1 / 10)


def test_perfect_files_score_one(tmp_path: Path) -> None:
    part = np.eye(6, dtype=np.float32)
    queries, references = [f"Q{i:05d}" for i in range(6)], [f"R{i:06d}" for i in range(6)]
    write_descriptors(tmp_path / "s.h5", Descriptors(queries, part), Descriptors(references, part))
    write_matches(tmp_path / "s.csv", queries, references, l2_neighbours(part, part, 3))
    truth = tmp_path / "truth.csv"
    truth.write_text(
        "query_id,reference_id\n" + "".join(f"{q},{r}\n" for q, r in zip(queries, references, strict=True))
    )
    for name in ("s.h5", "s.csv"):
        scores = evaluate_files(tmp_path / name, truth)
        assert [scores.uap, scores.recall_at_p90] == pytest.approx([1.0, 1.0])
    with pytest.raises(UsageError, match="expected descriptors"):
        evaluate_files(tmp_path / "s.txt", truth)
    truth.write_text("query_id,reference_id\nQ99999,R000000\n")
    with pytest.raises(DataError, match="Q99999"):
        evaluate_files(tmp_path / "s.h5", truth)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected the header"),
        ("a,b\n", "expected the header"),
        ("query_id,reference_id\nQ1,R1\nQ1,R1\n", "line 3: Q1,R1 is there twice"),
        ("query_id,reference_id\nQ1\n", "line 2"),
        ("query_id,reference_id\nQ1,\n", "no matching pair"),
    ],
)
def test_a_wrong_ground_truth_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "truth.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_ground_truth(path)


@pytest.mark.parametrize("line", ["Q1,R1,x", "Q1,R1,nan", "Q1,R1,1\nQ1,R1,2", "Q1,R1"])
def test_wrong_matches_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"query_id,reference_id,score\n{line}\n")
    with pytest.raises(DataError, match="line"):
        read_matches(path)


def test_what_match_writes_is_read_without_its_last_column(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("query_id,reference_id,score,copy\na/1.jpg,b.jpg,-0.5,yes\n")
    assert (read_matches(path).queries, read_matches(path).scores.tolist()) == (["a/1.jpg"], [-0.5])
    for wrong in ("query_id,reference_id,score,other\nQ1,R1,1,x\n", "query_id,reference_id,score,copy\nQ1,R1,1\n"):
        path.write_text(wrong)
        with pytest.raises(DataError, match="expected"):
            read_matches(path)


def test_empty_lines_at_the_end_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("query_id,reference_id\nQ1,R1\n\n\n")
    assert read_ground_truth(path).pairs == {("Q1", "R1")}
    path.write_text("query_id,reference_id\n\nQ1,R1\n")
    with pytest.raises(DataError, match="line 2"):
        read_ground_truth(path)
