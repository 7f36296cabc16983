"""Evaluate: scores of every training on both tracks, and the report."""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from isc_jobs.report.charts import Line, line_chart, smoothed
from isc_jobs.report.page import gallery, page, table
from isc_jobs.retrieval.metrics import Scores, check_ground_truth, rank_descriptors, score_matches
from isc_jobs.retrieval.search import l2_neighbours
from isc_jobs.retrieval.submission import Descriptors, GroundTruth, Matches, read_descriptors, read_ground_truth
from isc_jobs.spec.settings import Evaluate
from isc_jobs.stages.postprocess import DESCRIPTORS
from isc_jobs.stages.runner import Context, run_stage
from isc_jobs.store.artifacts import Artifact
from isc_jobs.vision.decode import decode_rgb
from isc_jobs.vision.shards import ShardSet


@dataclass(frozen=True)
class _Row:
    name: str
    descriptor: Scores
    matching: Scores
    ranked: Matches


def body(ctx: Context) -> dict[str, Any]:
    """Write scores.json and report.html."""
    settings = Evaluate.model_validate(ctx.spec.settings["evaluate"])
    data = ctx.input("download")
    truth_name = f"ground_truth_{ctx.spec.settings['queries']}.csv"
    truth = read_ground_truth(data.path(truth_name)) if truth_name in data.names() else None
    files = list(_descriptor_files(ctx))
    rows: list[_Row] = []
    for done, (name, artifact, file) in enumerate(files if truth else [], start=1):
        assert truth is not None
        rows.append(_score(name, artifact, file, truth, settings.results_per_query))
        ctx.progress(done, len(files))
    scores = {
        "rows": [{"name": r.name, "descriptor": _numbers(r.descriptor), "matching": _numbers(r.matching)} for r in rows]
    }
    (ctx.out / "scores.json").write_text(json.dumps(scores, indent=1), "utf-8")
    (ctx.out / "report.html").write_text(_report(ctx, rows, truth, settings), "utf-8")
    return _numbers(rows[-1].descriptor) if rows else {}


def _descriptor_files(ctx: Context) -> Iterator[tuple[str, Artifact, str]]:
    for name in ctx.spec.inputs:
        if name.startswith("extract-"):
            yield name.removeprefix("extract-"), ctx.input(name), "descriptors.h5"
    yield "v107", ctx.input("extract"), "descriptors.h5"
    yield "v107 + postprocess", ctx.input("postprocess"), DESCRIPTORS


def _score(name: str, artifact: Artifact, file: str, truth: GroundTruth, results: int) -> _Row:
    path = artifact.path(file)
    queries, references = read_descriptors(path, "query"), read_descriptors(path, "reference")
    check_ground_truth(truth, queries, references)
    ranked = rank_descriptors(queries, references, results)
    return _Row(name, score_matches(ranked, truth), score_matches(_top(queries, references, results), truth), ranked)


def _top(queries: Descriptors, references: Descriptors, k: int) -> Matches:
    """The matching track's rows: k nearest references of each query."""
    found = l2_neighbours(queries.rows, references.rows, k)
    width = found.positions.shape[1]
    return Matches(
        [id_ for id_ in queries.ids for _ in range(width)],
        [references.ids[place] for place in found.positions.ravel()],
        found.scores.ravel().astype(float),
    )  # fmt: skip


def _numbers(scores: Scores) -> dict[str, float]:
    return {"uap": round(scores.uap, 5), "recall_at_p90": round(scores.recall_at_p90, 5)}


def _report(ctx: Context, rows: list[_Row], truth: GroundTruth | None, settings: Evaluate) -> str:
    manifest = json.loads(ctx.input("download").path("manifest.json").read_text("utf-8"))
    counts = [(name.replace("_", " "), str(entry["count"])) for name, entry in manifest["sets"].items()]
    counts.append(("bad pictures, left out", str(manifest["bad"])))
    headline = [
        (f"{rows[-1].descriptor.uap:.3f}", "uAP"),
        (f"{rows[-1].descriptor.recall_at_p90:.3f}", "recall at precision 90"),
    ]
    lead = f"{len(truth.queries)} queries, {len(truth.pairs)} of them edited copies." if truth else (
        "The data hold no ground truth for these queries: descriptors were made, nothing could be scored."
    )  # fmt: skip
    sections = [
        ("Scores", _score_table(rows)),
        ("Curves", f'<div class="charts">{_precision_recall(rows)}{_training_charts(ctx)}</div>'),
        *(_galleries(ctx, rows[-1], truth, settings.gallery) if rows and truth else []),
        ("Data", table("Pictures", ("set", "count"), counts)),
        ("Time and versions", _times(ctx)),
    ]
    return page(f"Copy detection: {ctx.spec.run}", lead, headline, sections)


def _score_table(rows: list[_Row]) -> str:
    cells = [
        (row.name, *(f"{value:.4f}" for s in (row.descriptor, row.matching) for value in (s.uap, s.recall_at_p90)))
        for row in rows
    ]
    header = ("descriptors", "uAP", "R@P90", "uAP, matching", "R@P90, matching")
    return table("Descriptor track: one cap over all queries; matching track: ten results a query", header, cells)


def _precision_recall(rows: list[_Row]) -> str:
    lines = [
        Line(row.name, list(zip(row.descriptor.recall, row.descriptor.precision, strict=True)), colour=number)
        for number, row in enumerate(rows)
    ]
    return line_chart("Precision over recall", "recall", lines, (0.0, 1.0))


def _training_charts(ctx: Context) -> str:
    charts = []
    for number, name in enumerate(name for name in ctx.spec.inputs if name.startswith("train-")):
        with ctx.input(name).path("history.csv").open(encoding="utf-8") as file:
            history = list(csv.DictReader(file))
        loss = [(float(row["step"]), float(row["loss"])) for row in history]
        rate = [(float(row["step"]), float(row["lr"])) for row in history]
        curves = [Line("loss", loss, faint=True, colour=number), Line("loss, smoothed", smoothed(loss), colour=number)]
        charts.append(line_chart(f"{name}: loss", "step", curves))
        charts.append(line_chart(f"{name}: learning rate", "step", [Line("learning rate", rate, colour=number)]))
    return "".join(charts)


def _galleries(ctx: Context, row: _Row, truth: GroundTruth, most: int) -> list[tuple[str, str]]:
    """Matches and false matches by score, misses by id, of the last row."""
    pairs = list(zip(row.ranked.queries, row.ranked.references, row.ranked.scores, strict=True))
    pairs = [pair for pair in pairs if pair[0] in truth.queries]
    best: dict[str, tuple[str, str, float]] = {}
    for query, reference, score in pairs:
        best.setdefault(query, (query, reference, score))
    right = [pair for pair in best.values() if pair[:2] in truth.pairs]
    wrong = [pair for pair in best.values() if pair[:2] not in truth.pairs]
    found = {pair[:2] for pair in pairs}
    missed = [
        (q, r, float("nan"))
        for q, r in sorted(truth.pairs - found | {p for p in truth.pairs if best.get(p[0], p)[:2] != p})
    ]
    show = _Pictures(ctx)
    spread = right[:: max(1, len(right) // most)] if most else []
    return [
        ("Matches", gallery(show.card(pair, f"score {pair[2]:.3f}") for pair in spread[:most])),
        ("Misses", gallery(show.card(pair, "the original, not found first") for pair in missed[:most])),
        ("False matches", gallery(show.card(pair, f"score {pair[2]:.3f}") for pair in wrong[:most])),
    ]


class _Pictures:
    def __init__(self, ctx: Context) -> None:
        data = ctx.input("download")
        self._sets = [ShardSet(data, name) for name in (f"query_{ctx.spec.settings['queries']}", "reference")]
        self._places = [{id_: place for place, id_ in enumerate(pictures.ids)} for pictures in self._sets]

    def card(self, pair: tuple[str, str, float], note: str) -> tuple[str, Image.Image, str, Image.Image, str]:
        query, reference = (
            decode_rgb(pictures.read(places[id_]), reduce_to=160)
            for pictures, places, id_ in zip(self._sets, self._places, pair[:2], strict=True)
        )
        return pair[0], query, pair[1], reference, note


def _times(ctx: Context) -> str:
    commits = {name: ctx.input(name).commit for name in ctx.spec.inputs}
    times = table("Stages", ("stage", "seconds"), [(name, f"{commit.seconds:.1f}") for name, commit in commits.items()])
    provenance = {name: value for commit in commits.values() for name, value in commit.provenance.items()}
    return times + table("Versions", ("package", "version"), sorted(provenance.items()))


if __name__ == "__main__":
    sys.exit(run_stage("evaluate", body))
