"""Search, subtraction and metrics equal slow, obvious references; ties included."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isc_jobs.retrieval.metrics import evaluate_files, score_matches
from isc_jobs.retrieval.search import best_pairs, inner_product_neighbours, l2_neighbours
from isc_jobs.retrieval.submission import (
    Descriptors,
    GroundTruth,
    Matches,
    read_ground_truth,
    read_matches,
    write_descriptors,
    write_matches,
)  # fmt: skip
from isc_jobs.retrieval.subtraction import normalised, smooth, subtract_negatives
from isc_jobs.spec.errors import DataError, UsageError

RNG = np.random.default_rng(0)


def rows(count: int, dimensions: int = 8) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return normalised(RNG.normal(size=(count, dimensions)).astype(np.float32))


def test_smoothing_and_subtraction_equal_the_formula() -> None:
    train, queries = rows(30), rows(7)
    smoothed = []
    for row in train:
        similar = sorted(range(30), key=lambda i: -float(row @ train[i]))[:10]
        total = sum((float(row @ train[i]) ** 3) * train[i] for i in similar)
        smoothed.append(total / np.linalg.norm(total))
    found = smooth(train, 10, 3.0)
    np.testing.assert_allclose(found, smoothed, atol=1e-6)
    for row, ours in zip(queries, subtract_negatives(queries, found, 10, 0.35), strict=True):
        similar = sorted(range(30), key=lambda i: -float(row @ found[i]))[:10]
        expected = row - 0.35 * np.mean([found[i] for i in similar], axis=0)
        np.testing.assert_allclose(ours, expected / np.linalg.norm(expected), atol=1e-6)


def test_fewer_rows_than_neighbours_and_nan() -> None:
    assert inner_product_neighbours(rows(3), rows(4), 10).positions.shape == (3, 4)
    with pytest.raises(DataError, match="NaN"):
        l2_neighbours(np.full((1, 8), np.nan, np.float32), rows(4), 2)


@pytest.mark.parametrize("cap", [1, 5, 40, 1000])
def test_the_best_pairs_are_those_of_a_full_sort_ties_included(cap: int) -> None:
    queries = np.round(rows(20, 3)).astype(np.float32)
    references = np.round(rows(15, 3)).astype(np.float32)
    every = [(-float(((q - r) ** 2).sum()), i, j) for i, q in enumerate(queries) for j, r in enumerate(references)]
    expected = sorted(every, key=lambda pair: (-pair[0], pair[1], pair[2]))[:cap]
    found = best_pairs(queries, references, cap)
    assert list(zip(found.queries.tolist(), found.references.tolist(), strict=True)) == [pair[1:] for pair in expected]
    np.testing.assert_allclose(found.scores, [pair[0] for pair in expected], atol=1e-6)


def slow_scores(results: list[tuple[float, str, str]], truth: GroundTruth) -> tuple[float, float]:
    ranked = sorted((r for r in results if r[1] in truth.queries), key=lambda r: (-r[0], (r[1], r[2]) in truth.pairs))
    hits, uap, best = 0, 0.0, 0.0
    for place, (_, query, reference) in enumerate(ranked, start=1):
        if (query, reference) in truth.pairs:
            hits += 1
            uap += hits / place / len(truth.pairs)
        if hits / place >= 0.9:
            best = max(best, hits / len(truth.pairs))
    return uap, best


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 5)), st.sampled_from([0.0, 0.5, 1.0]), max_size=30))
def test_metrics_equal_the_definition_with_many_ties(pairs: dict[tuple[int, int], float]) -> None:
    truth = GroundTruth(frozenset("01234"), frozenset({("0", "0"), ("1", "2"), ("2", "2"), ("3", "1")}))
    results = [(score, str(query), str(reference)) for (query, reference), score in pairs.items()]
    matches = Matches([r[1] for r in results], [r[2] for r in results], np.array([r[0] for r in results]))
    ours = score_matches(matches, truth)
    assert (ours.uap, ours.recall_at_p90) == pytest.approx(slow_scores(results, truth), abs=1e-9)


def test_perfect_files_score_one(tmp_path: Path) -> None:
    part = rows(6)
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
