"""The gallery: which results are worth a look, and their pictures side by side."""

import base64
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

from PIL import Image

from isc_jobs.report.text import escape

_SIDE = 160  # pixels


class Result(NamedTuple):
    """A claimed pair."""

    query: str
    reference: str
    score: float


class Shown(NamedTuple):
    """A picture of a card: the set it is from, its id, what it is to the query."""

    kind: str  # "query" or "reference"
    id: str
    role: str


@dataclass(frozen=True)
class Example:
    """A card: pictures in a row, the query first, and a line below."""

    pictures: tuple[Shown, ...]
    note: str


@dataclass(frozen=True)
class Examples:
    """What the gallery shows of each kind."""

    matches: list[Example]
    misses: list[Example]
    false_matches: list[Example]


def choose_examples(ranked: Sequence[Result], truth: AbstractSet[tuple[str, str]], most: int) -> Examples:
    """Up to ``most`` of each, from results ranked best first.

    Matches lie evenly between the surest and the least sure. Misses are true pairs that a wrong reference outranks
    or that are not among the results, the worst first. False matches are wrong first references, the surest first.
    """
    first: dict[str, Result] = {}
    places: dict[tuple[str, str], int] = {}
    for place, result in enumerate(ranked, start=1):
        first.setdefault(result.query, result)
        if result[:2] in truth:
            places[result[:2]] = place
    right = [r for r in ranked if r[:2] in truth and first[r.query][:2] in truth]
    wrong = [r for r in first.values() if r[:2] not in truth]
    missed = [pair for pair in truth if pair not in places or first[pair[0]][:2] not in truth]
    missed.sort(key=lambda pair: (-places.get(pair, len(ranked) + 1), pair))
    originals: dict[str, str] = dict(sorted(truth, reverse=True))
    return Examples(
        [_match(r) for r in _spread(right, most)],
        [_miss(pair, places.get(pair), first.get(pair[0])) for pair in missed[:most]],
        [_false_match(r, originals.get(r.query)) for r in wrong[:most]],
    )


def _spread(results: Sequence[Result], most: int) -> list[Result]:
    if len(results) <= most or most < 2:
        return list(results[:most])
    return [results[round(index * (len(results) - 1) / (most - 1))] for index in range(most)]


def _match(result: Result) -> Example:
    pictures = (Shown("query", result.query, "query"), Shown("reference", result.reference, "found"))
    return Example(pictures, f"score {_signed(result.score)}")


def _miss(pair: tuple[str, str], place: int | None, instead: Result | None) -> Example:
    pictures = [Shown("query", pair[0], "query"), Shown("reference", pair[1], "its original")]
    if instead is not None and instead.reference != pair[1]:
        pictures.append(Shown("reference", instead.reference, "found first"))
    found = "is not among the results" if place is None else f"is number {place:,} of all pairs"
    return Example(tuple(pictures), f"the right pair {found}")


def _false_match(result: Result, original: str | None) -> Example:
    pictures = [Shown("query", result.query, "query"), Shown("reference", result.reference, "found, wrong")]
    if original is not None:
        pictures.append(Shown("reference", original, "its original"))
    return Example(
        tuple(pictures), f"score {_signed(result.score)}" + ("" if original else "; this query has no original")
    )


def _signed(score: float) -> str:
    return f"{score:.3f}".replace("-", "\N{MINUS SIGN}")


def gallery(examples: Sequence[Example], picture: Callable[[str, str], Image.Image]) -> str:
    """Cards; ``picture`` gives the image of a set ("query" or "reference") and id. Empty without examples."""
    cards = "".join(
        f'<li><figure><div class="row">{"".join(_cell(shown, picture) for shown in example.pictures)}</div>'
        f"<figcaption>{escape(example.note)}</figcaption></figure></li>"
        for example in examples
    )
    three = " three" if any(len(example.pictures) > 2 for example in examples) else ""
    return f'<ul class="gallery{three}">{cards}</ul>' if cards else ""


def _cell(shown: Shown, picture: Callable[[str, str], Image.Image]) -> str:
    return (
        f'<div><img alt="{escape(shown.kind)} picture {escape(shown.id)}" '
        f'src="{data_uri(picture(shown.kind, shown.id))}">'
        f"<span><b>{escape(shown.id)}</b>{escape(shown.role)}</span></div>"
    )


def data_uri(image: Image.Image) -> str:
    """A JPEG of at most 160 pixels a side, inline."""
    small, data = image.convert("RGB"), BytesIO()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    small.save(data, "JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
