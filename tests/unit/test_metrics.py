"""The challenge's rules: ties, queries that count, empty references, the cap over all queries."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isc_jobs.retrieval.metrics import evaluate_files, rank_descriptors, score_matches
from isc_jobs.retrieval.search import Matrix
from isc_jobs.retrieval.submission import Descriptors, GroundTruth, Matches, write_descriptors
from isc_jobs.spec.errors import DataError


def matches(*rows: tuple[str, str, float]) -> Matches:
    return Matches([r[0] for r in rows], [r[1] for r in rows], np.array([r[2] for r in rows], float))


def truth(*pairs: tuple[str, str]) -> GroundTruth:
    return GroundTruth(frozenset(q for q, _ in pairs), frozenset(pair for pair in pairs if pair[1]))


def test_among_equal_scores_wrong_ones_come_first() -> None:
    scores = score_matches(matches(("Q1", "R1", 0.5), ("Q1", "R2", 0.5)), truth(("Q1", "R1")))
    assert (scores.uap, scores.recall_at_p90) == (0.5, 0.0)


def test_only_named_queries_count_and_one_without_original_can_only_be_wrong() -> None:
    named = truth(("Q1", "R1"), ("Q2", ""))
    assert score_matches(matches(("Q9", "R1", 9), ("Q1", "R1", 1)), named).uap == 1.0
    assert score_matches(matches(("Q2", "R1", 9), ("Q1", "R1", 1)), named).uap == 0.5


def test_recall_at_p90_is_the_highest_after_precision_has_recovered() -> None:
    pairs = tuple((f"Q{i}", "R1") for i in range(20))
    right = [(q, r, 100.0 - i) for i, (q, r) in enumerate(pairs)]
    scores = score_matches(matches(("Q0", "R2", 99.5), *right), truth(*pairs))
    assert scores.recall_at_p90 == 1.0
    assert scores.precision[1] == 0.5


def test_no_results_score_zero() -> None:
    scores = score_matches(matches(), truth(("Q1", "R1")))
    assert (scores.uap, scores.recall_at_p90) == (0.0, 0.0)


def slow_uap(queries: Matrix, references: Matrix, true: set[tuple[int, int]], per_query: int) -> float:
    """uAP by a full sort of all pairs, written from the definition."""
    every = [
        (float(((q - r) ** 2).sum()), i, j) for i, q in enumerate(queries) for j, r in enumerate(references)
    ]  # fmt: skip
    kept = sorted(every)[: per_query * len(queries)]
    kept.sort(key=lambda pair: (pair[0], pair[1:] in true))
    hits, uap = 0, 0.0
    for place, (_, i, j) in enumerate(kept, start=1):
        if (i, j) in true:
            hits += 1
            uap += hits / place / len(true)
    return uap


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_descriptor_track_equals_a_full_sort(tmp_path: Path, seed: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    queries, references = rng.normal(size=(20, 3)), rng.normal(size=(30, 3))
    if tied:
        queries, references = np.round(queries), np.round(references)
    parts = queries.astype(np.float32), references.astype(np.float32)
    true = {(i, int(rng.integers(30))) for i in range(12)}
    ids = [f"Q{i:05d}" for i in range(20)], [f"R{i:06d}" for i in range(30)]
    write_descriptors(tmp_path / "s.h5", Descriptors(ids[0], parts[0]), Descriptors(ids[1], parts[1]))
    rows = [f"{ids[0][i]},{ids[1][j]}" for i, j in sorted(true)] + [f"{ids[0][i]}," for i in range(12, 20)]
    (tmp_path / "truth.csv").write_text("query_id,reference_id\n" + "\n".join(rows) + "\n")
    found = evaluate_files(tmp_path / "s.h5", tmp_path / "truth.csv").uap
    assert found == pytest.approx(slow_uap(parts[0], parts[1], true, 10), abs=1e-6)


def test_the_cap_is_over_all_queries_together() -> None:
    queries = Descriptors(["Q1", "Q2"], np.array([[0, 0], [9, 9]], np.float32))
    references = Descriptors(["R1", "R2", "R3"], np.array([[0, 0], [0, 1], [1, 1]], np.float32))
    ranked = rank_descriptors(queries, references, results_per_query=1)
    assert list(zip(ranked.queries, ranked.references, strict=True)) == [("Q1", "R1"), ("Q1", "R2")]


def test_unknown_ids_of_the_ground_truth_are_named(tmp_path: Path) -> None:
    one = np.zeros((1, 2), np.float32)
    write_descriptors(tmp_path / "s.h5", Descriptors(["Q1"], one), Descriptors(["R1"], one))
    (tmp_path / "truth.csv").write_text("query_id,reference_id\nQ1,R7\n")
    with pytest.raises(DataError, match="1 reference ids without a descriptor: R7"):
        evaluate_files(tmp_path / "s.h5", tmp_path / "truth.csv")


def slow_scores(results: list[tuple[float, str, str]], known: GroundTruth) -> tuple[float, float]:
    ranked = sorted((r for r in results if r[1] in known.queries), key=lambda r: (-r[0], (r[1], r[2]) in known.pairs))
    hits, uap, best = 0, 0.0, 0.0
    for place, (_, query, reference) in enumerate(ranked, start=1):
        if (query, reference) in known.pairs:
            hits += 1
            uap += hits / place / len(known.pairs)
        if hits / place >= 0.9:
            best = max(best, hits / len(known.pairs))
    return uap, best


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 5)), st.sampled_from([0.0, 0.5, 1.0]), max_size=30))
def test_metrics_equal_the_definition_with_many_ties(pairs: dict[tuple[int, int], float]) -> None:
    known = truth(("0", "0"), ("1", "2"), ("2", "2"), ("3", "1"), ("4", ""))
    results = [(score, str(query), str(reference)) for (query, reference), score in pairs.items()]
    ours = score_matches(matches(*((query, reference, score) for score, query, reference in results)), known)
    assert (ours.uap, ours.recall_at_p90) == pytest.approx(slow_scores(results, known), abs=1e-9)


def test_matches_of_another_phase_are_refused_and_not_scored_as_zero(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("query_id,reference_id\nQ00000,R000000\n")
    (tmp_path / "m.csv").write_text("query_id,reference_id,score\nQ50000,R000000,1\n")
    with pytest.raises(DataError, match=r"names no query of truth\.csv \(it begins with Q50000\)"):
        evaluate_files(tmp_path / "m.csv", tmp_path / "truth.csv")
