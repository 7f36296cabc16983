"""The challenge's rules: ties, queries that count, empty references, the cap over all queries."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_retrieval import KINDS, all_pairs, metric, rows_of

from isc_jobs.retrieval.metrics import evaluate_files, rank_descriptors, score_matches
from isc_jobs.retrieval.search import l2_neighbours
from isc_jobs.retrieval.submission import Descriptors, GroundTruth, Matches, write_descriptors, write_matches
from isc_jobs.spec.errors import DataError, UsageError


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


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 999), st.integers(1, 14), st.integers(1, 30), st.integers(1, 4))
def test_both_tracks_equal_a_full_sort(kind: str, seed: int, n: int, m: int, per_query: int) -> None:
    """References hold the queries too, so that with many kinds true and false pairs are tied."""
    queries = rows_of(kind, seed, n, 3)
    references = np.vstack((rows_of(kind, seed, m, 3), queries))
    rng = np.random.default_rng(seed)
    ids = [f"Q{i:05d}" for i in range(n)], [f"R{i:06d}" for i in range(m + n)]
    pairs = {(ids[0][i], ids[1][int(rng.integers(m + n))]) for i in rng.integers(0, n, n)}
    rows = sorted(pairs) + [(ids[0][i], "") for i in range(n) if rng.random() < 0.3]
    every = [(score, ids[0][i], ids[1][j]) for score, i, j in all_pairs(queries, references)]
    with TemporaryDirectory() as folder:
        h5, csv, named = (Path(folder) / name for name in ("s.h5", "s.csv", "truth.csv"))
        write_descriptors(h5, Descriptors(ids[0], queries), Descriptors(ids[1], references))
        write_matches(csv, *ids, l2_neighbours(queries, references, per_query))
        named.write_text("query_id,reference_id\n" + "".join(f"{q},{r}\n" for q, r in rows))
        whole, matching = evaluate_files(h5, named), evaluate_files(csv, named)
    assert (whole.uap, whole.recall_at_p90) == pytest.approx(metric(every[: 10 * n], rows), abs=1e-6)
    best = [result for id_ in ids[0] for result in [r for r in every if r[1] == id_][:per_query]]
    assert (matching.uap, matching.recall_at_p90) == pytest.approx(metric(best, rows), abs=1e-6)


def test_the_cap_is_over_all_queries_together() -> None:
    queries = Descriptors(["Q1", "Q2"], np.array([[0, 0], [9, 9]], np.float32))
    references = Descriptors(["R1", "R2", "R3"], np.array([[0, 0], [0, 1], [1, 1]], np.float32))
    ranked = rank_descriptors(queries, references, results_per_query=1)
    assert list(zip(ranked.queries, ranked.references, strict=True)) == [("Q1", "R1"), ("Q1", "R2")]


def test_unknown_ids_of_the_ground_truth_are_named(tmp_path: Path) -> None:
    one = np.zeros((1, 2), np.float32)
    write_descriptors(tmp_path / "s.h5", Descriptors(["Q1"], one), Descriptors(["R1"], one))
    (tmp_path / "truth.csv").write_text("query_id,reference_id\nQ1,R7\n")
    with pytest.raises(
        DataError, match=r"^s\.h5: the ground truth names 1 reference ids without a descriptor: R7; give"
    ):
        evaluate_files(tmp_path / "s.h5", tmp_path / "truth.csv")


KNOWN = [("0", "0"), ("1", "2"), ("2", "2"), ("3", "1"), ("4", "")]
SCORED = st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 5)), st.sampled_from([0.0, 0.5, 1.0]), max_size=30)


@settings(max_examples=200, deadline=None)
@given(SCORED)
def test_metrics_equal_the_definition_with_many_ties(pairs: dict[tuple[int, int], float]) -> None:
    known = truth(*KNOWN)
    results = [(score, str(query), str(reference)) for (query, reference), score in pairs.items()]
    ours = score_matches(matches(*((query, reference, score) for score, query, reference in results)), known)
    assert (ours.uap, ours.recall_at_p90) == pytest.approx(metric(results, KNOWN), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(SCORED, st.sampled_from([0.05, 0.25, 1 / 3, 0.5, 0.9, 1.0]))
def test_the_threshold_is_the_lowest_score_that_keeps_the_precision(
    pairs: dict[tuple[int, int], float], precision: float
) -> None:
    rows = [(str(query), str(reference), score) for (query, reference), score in pairs.items()]
    expected = None
    for least in (1.0, 0.5, 0.0):
        right = [(q, r) in KNOWN for q, r, score in rows if score >= least and q != "5"]  # 5 is not named
        if any(score == least for q, _, score in rows if q != "5") and sum(right) >= precision * len(right):
            expected = least
    scores = score_matches(matches(*rows), truth(*KNOWN))
    place = scores.lowest(precision)
    assert (None if place is None else scores.scores[place]) == expected


def test_a_threshold_needs_the_precision_to_be_reached_and_possible() -> None:
    named = truth(("Q1", "R1"), ("Q2", "R2"))
    rising = matches(("Q1", "R2", 3), ("Q1", "R1", 2), ("Q2", "R2", 1))
    assert score_matches(rising, named).lowest(0.6) == 2  # precisions 0, 1/2, 2/3
    assert score_matches(rising, named).lowest(0.7) is None
    assert score_matches(matches(), named).lowest(0.7) is None
    for precision in (0.0, 1.1, float("nan")):
        with pytest.raises(UsageError, match="expected a number above 0, at most 1"):
            score_matches(rising, named).lowest(precision)


@pytest.mark.parametrize(("queries", "references"), [(0, 3), (2, 0), (1, 1)])
def test_sets_without_or_with_one_row_are_ranked(queries: int, references: int) -> None:
    ranked = rank_descriptors(
        Descriptors(["Q1", "Q2"][:queries], np.ones((queries, 4), np.float32)),
        Descriptors(["R1", "R2", "R3"][:references], np.ones((references, 4), np.float32)),
    )
    assert list(zip(ranked.queries, ranked.references, strict=True)) == [("Q1", "R1")] * (queries * references == 1)
    assert score_matches(ranked, truth(("Q1", "R1"))).uap == float(queries * references == 1)


def test_matches_of_another_phase_are_refused_and_not_scored_as_zero(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("query_id,reference_id\nQ00000,R000000\n")
    (tmp_path / "m.csv").write_text("query_id,reference_id,score\nQ50000,R000000,1\n")
    with pytest.raises(
        DataError, match=r"names no query of truth\.csv: one begins with Q50000, the other with Q00000;"
    ):
        evaluate_files(tmp_path / "m.csv", tmp_path / "truth.csv")
