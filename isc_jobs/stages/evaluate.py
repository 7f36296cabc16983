"""Evaluate: scores of every training on both tracks, and the report."""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from isc_jobs.report.charts import Chart, Line, draw
from isc_jobs.report.gallery import Result, choose_examples, gallery
from isc_jobs.report.page import Section, figure, page, table
from isc_jobs.report.sections import data_tables, time_table, training_figure, version_table
from isc_jobs.retrieval.metrics import Scores, check_ground_truth, rank_descriptors, score_matches
from isc_jobs.retrieval.search import l2_neighbours
from isc_jobs.retrieval.submission import (
    Descriptors,
    GroundTruth,
    Matches,
    matches_of,
    read_descriptors,
    read_ground_truth,
    read_matches,
)  # fmt: skip
from isc_jobs.spec.settings import TRAINING_NAMES, Evaluate
from isc_jobs.stages.postprocess import DESCRIPTORS, MATCHES
from isc_jobs.stages.runner import Context, run_stage
from isc_jobs.store.artifacts import Artifact
from isc_jobs.vision.decode import decode_rgb
from isc_jobs.vision.shards import ShardSet

_FEW = 1000  # training pictures
_LABELS = {"whitened": "untrained, whitened", "postprocess": "v107 + postprocess"}
_COLOURS = {name: number for number, name in enumerate(("untrained", *TRAINING_NAMES, "postprocess"))} | {"whitened": 0}
_KINDS = {"untrained": "dotted", "whitened": "dashed", "v83": "dashed", "v98": "dashed", "postprocess": "strong"}


@dataclass(frozen=True)
class _Row:
    name: str
    descriptor: Scores
    matching: Scores
    ranked: Matches

    @property
    def label(self) -> str:
        return _LABELS.get(self.name, self.name)


def body(ctx: Context) -> dict[str, Any]:
    """Write scores.json and report.html; without ground truth there are no rows, and the report says so."""
    settings = ctx.spec.setting("evaluate", Evaluate)
    data = ctx.input("download")
    truth_name = f"ground_truth_{ctx.spec.settings['queries']}.csv"
    truth = read_ground_truth(data.path(truth_name)) if truth_name in data.names() else None
    rows = list(_score_all(ctx, truth, settings.results_per_query)) if truth else []
    scores = {
        "rows": [{"name": r.name, "descriptor": _numbers(r.descriptor), "matching": _numbers(r.matching)} for r in rows]
    }
    (ctx.out / "scores.json").write_text(json.dumps(scores, indent=1), "utf-8")
    (ctx.out / "report.html").write_text(_report(ctx, rows, truth, settings), "utf-8")
    return _numbers(rows[-1].descriptor) if rows else {}


def _score_all(ctx: Context, truth: GroundTruth, results: int) -> Iterator[_Row]:
    files = list(_descriptor_files(ctx))
    for done, (name, artifact, file) in enumerate(files, start=1):
        yield _score(name, artifact, file, truth, results)
        ctx.progress(done, len(files))


def _descriptor_files(ctx: Context) -> Iterator[tuple[str, Artifact, str]]:
    """Name, output and file of every input with descriptors, in the pipeline's order."""
    for name in ctx.spec.inputs:
        if name == "postprocess":
            yield name, ctx.input(name), DESCRIPTORS
        elif name.startswith("extract"):
            yield name.removeprefix("extract").removeprefix("-") or "v107", ctx.input(name), "descriptors.h5"


def _score(name: str, artifact: Artifact, file: str, truth: GroundTruth, results: int) -> _Row:
    path = artifact.path(file)
    queries, references = read_descriptors(path, "query"), read_descriptors(path, "reference")
    check_ground_truth(truth, queries, references, f"{name}'s {path.name}")
    ranked = rank_descriptors(queries, references, results)
    submitted = MATCHES in artifact.names()
    matches = read_matches(artifact.path(MATCHES)) if submitted else _top(queries, references, results)
    return _Row(name, score_matches(ranked, truth), score_matches(matches, truth), ranked)


def _top(queries: Descriptors, references: Descriptors, k: int) -> Matches:
    """The matching track's rows: k nearest references of each query, under the track's cap."""
    return matches_of(queries.ids, references.ids, l2_neighbours(queries.rows, references.rows, k))


def _numbers(scores: Scores) -> dict[str, float]:
    return {"uap": round(scores.uap, 5), "recall_at_p90": round(scores.recall_at_p90, 5)}


def _report(ctx: Context, rows: list[_Row], truth: GroundTruth | None, settings: Evaluate) -> str:
    commits = [ctx.input(name).commit for name in ctx.spec.inputs]
    sections = [
        *_score_sections(rows),
        *(_galleries(ctx, rows[-1], truth, settings.gallery) if rows and truth else []),
        Section("Training", "The loss is the sum of its positive and negative part.", _training_charts(ctx)),
        Section("Data", "", _data(ctx, truth)),
        Section("Time and versions", "", f'<div class="sides">{time_table(commits)}{version_table(commits)}</div>'),
    ]
    return page(f"Copy detection: {ctx.spec.run}", _lead(ctx, rows, truth), _tiles(rows), sections)


def _lead(ctx: Context, rows: list[_Row], truth: GroundTruth | None) -> list[str]:
    phase = ctx.spec.settings["queries"].replace("phase", "phase ")
    if truth is None:
        return [f"The data hold no ground truth for the queries of {phase}: nothing could be scored."]
    copies = len({query for query, _ in truth.pairs})
    lines = [f"{len(truth.queries):,} queries of {phase}, {copies:,} of them edited copies of a reference picture."]
    few = _manifest(ctx)["sets"].get("train", {}).get("count", 0)
    if few < _FEW and any(name.startswith("train-") for name in ctx.spec.inputs):
        lines.append(
            f"{few:,} training pictures show that every step works; they are too few for training to add much to the "
            "backbone's own features."
        )
    best = max(rows, key=lambda row: row.descriptor.uap, default=None)
    if best is not None and best.descriptor.uap > rows[-1].descriptor.uap:
        lines.append(
            f"Here {best.label} has a higher uAP ({best.descriptor.uap:.4f}) than the last row, {rows[-1].label} "
            f"({rows[-1].descriptor.uap:.4f})."
        )
    return lines


def _tiles(rows: list[_Row]) -> list[tuple[str, str]]:
    if not rows:
        return []
    last = rows[-1].descriptor
    tiles = [(f"{last.uap:.4f}", f"uAP, {rows[-1].label}"), (f"{last.recall_at_p90:.4f}", "recall at precision 0.9")]
    return tiles + [(f"{row.descriptor.uap:.4f}", "uAP, untrained") for row in rows[:-1] if row.name == "untrained"]


def _score_sections(rows: list[_Row]) -> list[Section]:
    cells = [
        (row.label, *(f"{value:.4f}" for s in (row.descriptor, row.matching) for value in (s.uap, s.recall_at_p90)))
        for row in rows
    ]
    header = ("descriptors", "uAP, descriptor", "R@P90, descriptor", "uAP, matching", "R@P90, matching")
    scores = table("Scores on both tracks", header, cells, marked=len(rows) - 1)
    note = (
        "Descriptor track: the best pairs of all queries under one cap; matching track: as many results for every "
        "query. uAP is the micro average precision, R@P90 the highest recall at precision 0.9 or more."
    )
    return [
        Section("Scores", note, scores if rows else ""),
        Section("Precision and recall", "", figure("Descriptor track", _curves(rows), wide=True)),
    ]  # fmt: skip


def _curves(rows: list[_Row]) -> str:
    """Precision after every hit; the dashed level is precision 0.9."""
    lines = []
    for row in rows:
        recall, precision = row.descriptor.recall, row.descriptor.precision
        hits = [place for place in range(len(recall)) if recall[place] > (recall[place - 1] if place else 0)]
        points = [(float(recall[place]), float(precision[place])) for place in hits]
        lines.append(Line(row.label, points, _COLOURS[row.name], _KINDS.get(row.name, "")))
    chart = Chart(
        title="Precision and recall", x_name="recall", y_name="precision", width=1000, height=380,
        x_range=(0.0, 1.0), y_range=(0.0, 1.0), level=0.9,
    )  # fmt: skip
    return draw(chart, lines)


def _training_charts(ctx: Context) -> str:
    charts = []
    for name in (name for name in ctx.spec.inputs if name.startswith("train-")):
        history = _read_rows(ctx.input(name), "history.csv")
        charts.append(training_figure(name, history, _COLOURS[name.removeprefix("train-")]))
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def _data(ctx: Context, truth: GroundTruth | None) -> str:
    bad = _read_rows(ctx.input("download"), "bad_images.csv")
    return data_tables(_manifest(ctx), bad, len(truth.pairs) if truth else None)


def _manifest(ctx: Context) -> dict[str, Any]:
    """What download counted."""
    manifest: dict[str, Any] = json.loads(ctx.input("download").path("manifest.json").read_text("utf-8"))
    return manifest


def _read_rows(artifact: Artifact, name: str) -> list[dict[str, str]]:
    with artifact.path(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _galleries(ctx: Context, row: _Row, truth: GroundTruth, most: int) -> list[Section]:
    """Matches, misses and false matches of one row of the scores."""
    ranked = [
        Result(query, reference, float(score))
        for query, reference, score in zip(row.ranked.queries, row.ranked.references, row.ranked.scores, strict=True)
        if query in truth.queries
    ]
    examples = choose_examples(ranked, truth.pairs, most)
    show = _Pictures(ctx)
    unit = "The score is minus the squared L2 distance of the descriptors."
    return [
        Section("Matches", f"Originals found first, from the surest to the least sure. {unit}",
                gallery(examples.matches, show)),
        Section("Misses", "Copies whose original a wrong reference outranks, the worst first.",
                gallery(examples.misses, show)),
        Section("False matches", "Wrong references found first, the surest first.",
                gallery(examples.false_matches, show)),
    ]  # fmt: skip


class _Pictures:
    """Pictures by set, "query" or "reference", and id."""

    def __init__(self, ctx: Context) -> None:
        names = {"query": f"query_{ctx.spec.settings['queries']}", "reference": "reference"}
        self._sets = {kind: ShardSet(ctx.input("download"), name) for kind, name in names.items()}
        self._places = {kind: {id_: i for i, id_ in enumerate(pictures.ids)} for kind, pictures in self._sets.items()}

    def __call__(self, kind: str, id_: str) -> Image.Image:
        return decode_rgb(self._sets[kind].read(self._places[kind][id_]), reduce_to=160)


if __name__ == "__main__":
    sys.exit(run_stage("evaluate", body))
