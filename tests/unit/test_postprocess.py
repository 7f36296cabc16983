"""The stage: its files equal the recipe computed slowly, whatever the sets' sizes; concatenation joins by ids."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from slow_retrieval import Wide, inner, metric, nearness, postprocessed, rows_of

from isc_jobs.retrieval.metrics import evaluate_files
from isc_jobs.retrieval.rows import Matrix
from isc_jobs.retrieval.submission import Descriptors, read_descriptors
from isc_jobs.spec.errors import DataError
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.stages.postprocess import body
from isc_jobs.stages.runner import Context
from isc_jobs.store import open_store
from isc_jobs.store.artifacts import publish

Sets = dict[str, tuple[list[str], Matrix]]  # "train", "query", "reference": ids and rows
_LETTERS = {"train": "T", "query": "Q", "reference": "R"}


def sets_of(kind: str, seed: int, train: int, query: int, reference: int, dimensions: int = 8) -> Sets:
    return {
        name: ([f"{_LETTERS[name]}{i:05d}" for i in range(count)], rows_of(kind, seed + i, count, dimensions))
        for i, (name, count) in enumerate((("train", train), ("query", query), ("reference", reference)))
    }


def stage(tmp_path: Path, parts: dict[str, Sets], **changes: Any) -> Context:
    """An attempt with the descriptors of each extraction in its store."""
    store = open_store(str(tmp_path / "store"))
    for name, sets in parts.items():
        (tmp_path / name).mkdir(parents=True)
        with h5py.File(tmp_path / name / "descriptors.h5", "w") as file:
            for set_, (ids, rows) in sets.items():
                file[set_], file[f"{set_}_ids"] = rows, np.array([id_.encode() for id_ in ids], "S7")
        publish(store, InputRef(stage=name, key="0" * 64), tmp_path / name, run="r", attempt=1, summary={},
                provenance={}, seconds=1.0)  # fmt: skip
    settings = load_settings("isc21").postprocess.model_dump(mode="json") | changes
    spec = StageSpec(
        program="postprocess", stage="postprocess", key="1" * 64, run="r", attempt=1, store=store.uri,
        settings={"postprocess": settings}, inputs={name: InputRef(stage=name, key="0" * 64) for name in parts},
        parameters={}, execution={},
    )  # fmt: skip
    return Context(spec, store, tmp_path / "work")


def made(ctx: Context) -> tuple[Descriptors, Descriptors]:
    """Run the stage; queries and references of its descriptor file."""
    body(ctx)
    queries, references = (read_descriptors(ctx.out / "v107_iso.h5", name) for name in ("query", "reference"))
    return queries, references


def slow_matches(queries: Wide, references: Wide, ids: tuple[list[str], list[str]]) -> list[tuple[float, str, str]]:
    results = []
    for id_, query in zip(ids[0], queries, strict=True):
        every = [(nearness(query, row), place) for place, row in enumerate(references)]
        best = sorted(every, key=lambda pair: (-pair[0], pair[1]))[:10]
        results += [(score, id_, ids[1][place]) for score, place in best]
    return results


@pytest.mark.parametrize(
    ("kind", "train", "query", "reference"),
    [("unit", 40, 15, 30), ("unit", 3, 5, 4), ("unit", 40, 1, 30), ("unit", 40, 15, 1), ("unit", 1, 1, 1),
     ("duplicates", 40, 15, 30), ("all equal", 30, 5, 14), ("some zero", 40, 15, 30)],
)  # fmt: skip
def test_files_and_metrics_equal_the_recipe(tmp_path: Path, kind: str, train: int, query: int, reference: int) -> None:
    sets = sets_of(kind, 5, train, query, reference)
    ctx = stage(tmp_path, {"extract": sets})
    queries, references = made(ctx)
    ids = queries.ids, references.ids
    slow = postprocessed(sets["train"][1], sets["query"][1], sets["reference"][1])
    np.testing.assert_allclose(queries.rows, slow[0], atol=1e-6)
    np.testing.assert_allclose(references.rows, slow[1], atol=1e-6)

    expected = slow_matches(queries.rows.astype(float), references.rows.astype(float), ids)
    with (ctx.out / "v107_iso.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["query_id", "reference_id", "score"]
    assert [(q, r) for q, r, _ in lines] == [pair[1:] for pair in expected]
    np.testing.assert_allclose([float(line[2]) for line in lines], [pair[0] for pair in expected], atol=1e-6)

    rows = [(id_, ids[1][place % reference] if place % 3 else "") for place, id_ in enumerate(ids[0], start=1)]
    (tmp_path / "truth.csv").write_text("query_id,reference_id\n" + "".join(f"{q},{r}\n" for q, r in rows))
    scores = evaluate_files(ctx.out / "v107_iso.csv", tmp_path / "truth.csv")
    assert (scores.uap, scores.recall_at_p90) == pytest.approx(metric(expected, rows), abs=1e-6)


def test_ids_in_any_order_come_out_sorted_with_their_rows(tmp_path: Path) -> None:
    sets = sets_of("unit", 0, 20, 6, 9)
    mixed: Sets = {}
    for name, (ids, rows) in sets.items():
        order = np.random.default_rng(1).permutation(len(ids))
        mixed[name] = [ids[place] for place in order], rows[order]
    ours, theirs = made(stage(tmp_path / "a", {"extract": mixed})), made(stage(tmp_path / "b", {"extract": sets}))
    for one, other in zip(ours, theirs, strict=True):
        assert one.ids == other.ids == sorted(one.ids)
        np.testing.assert_allclose(one.rows, other.rows, atol=1e-6)


def test_progress_ends_at_its_total_with_and_without_options(tmp_path: Path) -> None:
    sets = sets_of("unit", 0, 20, 6, 9)
    for name, total, changes in (
        ("plain", 20 + 6 + 9 + 6, {}),
        ("all", 20 + 6 + 9 + 6 + 6, {"score_normalisation": {"neighbours": 3, "weight": 0.5}, "concatenate": ["v98"]}),
    ):
        ctx = stage(tmp_path / name, {"extract": sets, "extract-v98": sets_of("unit", 9, 20, 6, 9)}, **changes)
        said: list[tuple[int, int]] = []
        ctx.progress = lambda done, of, said=said: said.append((done, of))
        body(ctx)
        assert said[0] == (0, total)
        assert said[-1] == (total, total)
        assert said == sorted(said)


def concatenated(parts: dict[str, Sets], name: str) -> Wide:
    return np.hstack([sets[name][1] for sets in parts.values()]).astype(float)


def test_concatenated_descriptors_are_reduced_along_the_training_set_s_axes(tmp_path: Path) -> None:
    parts = {"extract": sets_of("unit", 0, 60, 6, 9), "extract-v98": sets_of("unit", 10, 60, 6, 9, 5),
             "extract-v86": sets_of("unit", 20, 60, 6, 9, 4)}  # fmt: skip
    ids, rows = parts["extract-v86"]["query"]
    parts["extract-v86"]["query"] = ids[::-1], rows[::-1]  # the same pictures in another order
    ctx = stage(tmp_path, parts, concatenate=["v98", "v86"], beta=0.0)
    queries, references = made(ctx)
    parts["extract-v86"]["query"] = ids, rows
    train = concatenated(parts, "train")
    axes = np.linalg.svd(train - train.mean(axis=0))[2][:8]  # as many as v107's descriptors have
    for found, name in ((queries, "query"), (references, "reference")):
        along = (concatenated(parts, name) - train.mean(axis=0)) @ axes.T
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        assert found.rows.shape[1] == 8
        np.testing.assert_allclose(found.rows @ found.rows.T, along @ along.T, atol=1e-5)


def test_the_projection_is_the_training_set_s_alone(tmp_path: Path) -> None:
    parts = {"extract": sets_of("unit", 0, 30, 6, 9), "extract-v98": sets_of("unit", 10, 30, 6, 9)}
    others = {name: sets | {"query": sets_of("unit", 77, 1, 6, 1)["query"]} for name, sets in parts.items()}
    options = {"concatenate": ["v98"], "score_normalisation": {"neighbours": 3, "weight": 0.5}}
    ours = made(stage(tmp_path / "a", parts, **options))
    theirs = made(stage(tmp_path / "b", others, **options))
    np.testing.assert_array_equal(ours[1].rows, theirs[1].rows)
    assert not np.allclose(ours[0].rows, theirs[0].rows, atol=1e-2)


def test_score_normalisation_follows_subtraction(tmp_path: Path) -> None:
    sets = sets_of("unit", 0, 30, 6, 9)
    plain = made(stage(tmp_path / "plain", {"extract": sets}))
    options = {"score_normalisation": {"neighbours": 4, "weight": 0.7}}
    queries, references = made(stage(tmp_path / "normalised", {"extract": sets}, **options))
    for i, query in enumerate(plain[0].rows):
        bias = np.mean(sorted((inner(query, row) for row in sets["train"][1]), reverse=True)[:4])
        for j, reference in enumerate(plain[1].rows):
            explicit = inner(query, reference) - 0.7 * bias
            found = nearness(queries.rows[i], references.rows[j])
            assert found == pytest.approx(2 * explicit - 2 - 2 * 0.7, abs=1e-6)


def without_a_query(sets: Sets) -> Sets:
    ids, rows = sets["query"]
    return sets | {"query": (ids[:-1], rows[:-1])}


def without_training(sets: Sets) -> Sets:
    return {name: part for name, part in sets.items() if name != "train"}


def with_nan(sets: Sets) -> Sets:
    sets["reference"][1][3, 2] = np.nan
    return sets


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_a_query, "extract and extract-v98 describe different pictures: 1 query ids .* first is 'Q00005'"),
        (without_training, "expected train and train_ids"),
        (with_nan, "reference: 1 of 9 descriptors hold NaN or infinity, first row 3"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: Callable[[Sets], Sets], sentence: str) -> None:
    parts = {"extract": sets_of("unit", 0, 30, 6, 9), "extract-v98": change(sets_of("unit", 10, 30, 6, 9))}
    with pytest.raises(DataError, match=sentence):
        body(stage(tmp_path, parts, concatenate=["v98"]))
