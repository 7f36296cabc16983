"""What is found, as files: matches, bad pictures, threshold and counts, and a page to look at."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from isc_jobs.matching.pictures import Picture
from isc_jobs.report.charts import Chart, Line, draw, thinned
from isc_jobs.report.gallery import Example, Shown, gallery
from isc_jobs.report.page import Section, figure, page, table
from isc_jobs.retrieval.metrics import Scores
from isc_jobs.retrieval.submission import Matches
from isc_jobs.spec.plain import counted
from isc_jobs.spec.settings import Matching
from isc_jobs.vision.decode import BadImage, decode_rgb

_SHOWN_BAD = 50
_ONE_IN_TWENTY = 0.05
_UNIT = "The score is minus the squared L2 distance: 0 is the same descriptor."


@dataclass(frozen=True)
class Threshold:
    """The least score of a copy, what it is from, and precision and recall down to it; None: unknown."""

    score: float | None
    by: str
    precision: float | None = None
    recall: float | None = None
    pairs: int = 0  # down to it, of which precision is the share that is right
    copies: int = 0  # that there were to find

    @property
    def least_precision(self) -> float | None:
        """What precision is at least, with 95% confidence: the lower bound of Clopper and Pearson, which is exact."""
        return None if self.precision is None else _lower_bound(round(self.precision * self.pairs), self.pairs)


def _lower_bound(right: int, pairs: int) -> float:
    """The share at which so many right ones, or more, would be a matter of one time in twenty."""
    if not right:
        return 0.0
    counts = np.arange(right, pairs + 1)
    factorials = np.concatenate(([0.0], np.log(np.arange(1, pairs + 1)).cumsum()))
    ways = factorials[pairs] - factorials[counts] - factorials[pairs - counts]
    low, high = 0.0, right / pairs
    for _ in range(40):
        share = (low + high) / 2
        likely = np.exp(ways + counts * math.log(share) + (pairs - counts) * math.log1p(-share)).sum()
        low, high = (share, high) if likely < _ONE_IN_TWENTY else (low, share)
    return low


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that the files show."""

    matches: Matches  # by query id, then score
    curve: Scores | None
    threshold: Threshold
    pictures: Mapping[str, Mapping[str, Picture]]  # by set and id
    bad: Sequence[tuple[str, str, str]]  # set, id, reason
    model: Mapping[str, Any]

    def is_copy(self, score: float) -> bool:
        """Whether a pair's score is that of a copy."""
        return self.threshold.score is not None and score >= self.threshold.score

    @property
    def copies(self) -> int:
        """How many of the written pairs are copies."""
        return sum(map(self.is_copy, self.matches.scores.tolist()))


def write_found(out: Path, found: Found, settings: Matching) -> Iterator[str]:
    """Write ``out`` (CSV) and, beside it, .bad.csv, .json and .html; lines that say so."""
    _write(out, lambda file: _write_matches(file, found))
    _write(out.with_suffix(".bad.csv"), lambda file: _write_bad(file, found))
    _write(out.with_suffix(".json"), lambda file: file.write(json.dumps(_numbers(found), indent=1) + "\n"))
    _write(out.with_suffix(".html"), lambda file: file.write(_page(found, settings)))
    yield _threshold_line(found, settings)
    yield f"{found.copies:,} of {len(found.matches.scores):,} pairs are copies"
    if found.bad:
        yield f"{counted(len(found.bad), 'picture', 'pictures')} could not be used, see {out.with_suffix('.bad.csv')}"
    yield f"{out}; look at {out.with_suffix('.html')}"


def _write(path: Path, write: Callable[[IO[str]], object]) -> None:
    """Write a file whole or not at all; file names that are no UTF-8 keep their bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            write(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_matches(file: IO[str], found: Found) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("query_id", "reference_id", "score", "copy"))
    matches = found.matches
    for query, reference, score in zip(matches.queries, matches.references, matches.scores.tolist(), strict=True):
        writer.writerow((query, reference, f"{score:.9g}", "yes" if found.is_copy(score) else "no"))


def _write_bad(file: IO[str], found: Found) -> None:
    csv.writer(file, lineterminator="\n").writerows([("set", "file", "reason"), *found.bad])


def _numbers(found: Found) -> dict[str, Any]:
    threshold, curve = found.threshold, found.curve
    points = _points(curve) if curve else []
    return {
        "threshold": threshold.score, "threshold_from": threshold.by, "precision": threshold.precision,
        "least_precision": threshold.least_precision, "recall": threshold.recall,
        "pictures": {name: len(set_) for name, set_ in found.pictures.items()},
        "bad_pictures": len(found.bad), "pairs": len(found.matches.scores), "copies": found.copies,
        "model": dict(found.model),
        "curve": [{"score": score, "precision": precision, "recall": recall} for score, precision, recall in points],
    }  # fmt: skip


def _points(curve: Scores) -> list[tuple[float, float, float]]:
    places = [round(place) for place, _ in thinned([(float(place), 0.0) for place in range(len(curve.scores))])]
    return [(float(curve.scores[p]), float(curve.precision[p]), float(curve.recall[p])) for p in places]


def _threshold_line(found: Found, settings: Matching) -> str:
    threshold = found.threshold
    if threshold.by == "option":
        return f"threshold {threshold.score:.9g}, as given"
    if threshold.score is None:
        return (
            f"no threshold: by {threshold.by}, at no score is a share of {settings.precision} right; no pair is "
            "called a copy: look at the pairs and give --threshold"
        )
    sure, recall = threshold.least_precision or 0.0, threshold.recall or 0.0
    guess = "" if sure >= settings.precision else "; so few tell little: look at the pairs about it"
    return (
        f"threshold {threshold.score:.9g}: by {threshold.by}; of {threshold.copies:,} whose original is there "
        f"{round(recall * threshold.copies):,} are found down to it, of {counted(threshold.pairs, 'pair', 'pairs')} "
        f"found {threshold.precision:.0%} are right (at least {sure:.0%} with 95% confidence){guess}"
    )


def _page(found: Found, settings: Matching) -> str:
    line = _threshold_line(found, settings)
    bad = {(set_, id_) for set_, id_, _ in found.bad}
    names = {set_: sum((set_, id_) not in bad for id_ in pictures) for set_, pictures in found.pictures.items()}
    searched = counted(names["queries"], "query", "queries")
    lead = [
        f"{searched} searched among {counted(names['references'], 'reference', 'references')}.",
        f"{line[0].upper()}{line[1:]}.",
    ]
    tiles = [(f"{found.copies:,}", "pairs that are copies"), (f"{len(found.matches.scores):,}", "pairs in all")]
    if found.threshold.score is not None:
        tiles.append((f"{found.threshold.score:.3f}".replace("-", "\N{MINUS SIGN}"), "threshold"))
    sections = [*_galleries(found, settings.gallery), _curve_section(found, settings), _bad_section(found)]
    return page("Copies found", lead, tiles, sections)


def _galleries(found: Found, most: int) -> list[Section]:
    """The surest pairs, and those about the threshold, which tell whether it is right here."""
    order = _each_once(found, np.argsort(-found.matches.scores, kind="stable").tolist())
    count = sum(found.is_copy(found.matches.scores[place]) for place in order)
    if found.threshold.score is None:
        surest, above, below = order[:most], [], []
    else:
        surest = order[: min(most, count)]
        above, below = order[max(most, count - most) : count], order[count : count + most]
    parts = (
        ("Surest matches", _UNIT, surest), ("Just above the threshold", "Copies, the least sure last.", above),
        ("Just below the threshold", "Not called copies, the surest first.", below),
    )  # fmt: skip
    return [Section(heading, note, _gallery(found, places)) for heading, note, places in parts]


def _each_once(found: Found, order: list[int]) -> list[int]:
    """Of a pair that is there both ways round, the first."""
    seen: set[frozenset[str]] = set()
    kept = []
    for place in order:
        query, reference = found.matches.queries[place], found.matches.references[place]
        pair = frozenset((found.pictures["queries"][query].path, found.pictures["references"][reference].path))
        if pair not in seen:
            kept.append(place)
        seen.add(pair)
    return kept


def _gallery(found: Found, places: Sequence[int]) -> str:
    """Cards of pairs; one whose picture has gone since is left out."""
    images: dict[tuple[str, str], Image.Image] = {}
    examples = []
    for place in places:
        query, reference = found.matches.queries[place], found.matches.references[place]
        shown = Shown("query", query, "query"), Shown("reference", reference, "reference")
        try:
            for kind, id_ in (("query", query), ("reference", reference)):
                images[kind, id_] = _picture(found, kind, id_)
        except (OSError, BadImage):
            continue
        score = f"{found.matches.scores[place]:.3f}".replace("-", "\N{MINUS SIGN}")
        examples.append(Example(shown, f"score {score}"))
    return gallery(examples, lambda kind, id_: images[kind, id_])


def _picture(found: Found, kind: str, id_: str) -> Image.Image:
    set_ = found.pictures["queries" if kind == "query" else "references"]
    image = decode_rgb(Path(set_[id_].path).read_bytes(), reduce_to=160)
    image.thumbnail((320, 320))
    return image


def _curve_section(found: Found, settings: Matching) -> Section:
    if found.curve is None:
        return Section("Precision and recall", "", "")
    threshold = found.threshold
    points = [(recall, precision) for _, precision, recall in _points(found.curve)]
    lines = [Line("pairs down to each score", points, 2, "strong")]
    if threshold.recall is not None:
        lines.append(Line("threshold", [(threshold.recall, 0.0), (threshold.recall, 1.0)], 4, "dashed"))
    chart = Chart(
        title="Precision and recall", x_name="recall", y_name="precision", width=1000, height=380,
        x_range=(0.0, 1.0), y_range=(0.0, 1.0), level=settings.precision,
    )  # fmt: skip
    note = f"By {threshold.by}. The level is precision {settings.precision}."
    return Section("Precision and recall", note, figure("Which scores are copies", draw(chart, lines), wide=True))


def _bad_section(found: Found) -> Section:
    if not found.bad:
        return Section("Bad pictures", "", "")
    shown = found.bad[:_SHOWN_BAD]
    caption = "all" if len(shown) == len(found.bad) else f"the first {len(shown)} of {len(found.bad):,}"
    rows = [(id_, set_, reason) for set_, id_, reason in shown]
    return Section("Bad pictures", "", table(f"Bad pictures, {caption}", ("file", "set", "reason"), rows, words=True))
