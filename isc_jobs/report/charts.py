"""Line charts as inline SVG, coloured by the page's style sheet."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from isc_jobs.report.text import escape

_T = TypeVar("_T")
Points = Sequence[tuple[float, float]]
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 40


@dataclass(frozen=True)
class Line:
    """A named curve; ``kind`` is a class of the style sheet: faint lines lie behind and are not in the legend."""

    name: str
    points: Points
    colour: int = 0
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart's words, size in units of its own, and range; a range of None follows the points, from 0."""

    title: str
    x_name: str
    y_name: str
    width: int = 500
    height: int = 230
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    level: float | None = None  # a dashed line across at this y


def draw(chart: Chart, lines: Sequence[Line]) -> str:
    """SVG and legend; empty if there is nothing to draw. Points that are not finite are left out."""
    lines = [Line(line.name, _finite(line.points), line.colour, line.kind) for line in lines]
    drawn = [point for line in lines for point in line.points]
    if not drawn:
        return ""
    xs, ys = [x for x, _ in drawn], [y for _, y in drawn]
    x_ticks = ticks(*(chart.x_range or (min(xs), max(xs))))
    y_ticks = ticks(*(chart.y_range or (min(0.0, *ys), max(ys))), most=2 if chart.height < 200 else 5)
    x_low, x_high = chart.x_range or (min(xs), max(min(xs) + 1e-9, *xs))
    place = _scale(chart, (x_low, x_high), (y_ticks[0], y_ticks[-1]))
    parts = [_axes(chart, place, [x for x in x_ticks if x_low <= x <= x_high], y_ticks)]
    parts += [_polyline(line, place) for line in lines]
    return (
        f'<div class="plot"><svg viewBox="0 0 {chart.width} {chart.height}" role="img" '
        f'aria-label="{escape(_description(chart, lines))}">{"".join(parts)}</svg></div>{_legend(lines)}'
    )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) that cover low to high with at most ``most`` steps."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def smoothed(points: Points) -> list[tuple[float, float]]:
    """Exponential moving average over about a 20th of the points, without the bias of its start."""
    keep = 1 - 1 / max(5, len(points) / 20)
    result: list[tuple[float, float]] = []
    total = weight = 0.0
    for x, y in _finite(points):
        total, weight = keep * total + y, keep * weight + 1
        result.append((x, total / weight))
    return result


def thinned(points: Sequence[_T], most: int = 400) -> Sequence[_T]:
    """At most so many of them, ends included."""
    if len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    return [points[round(index * step)] for index in range(most)]


def _finite(points: Points) -> list[tuple[float, float]]:
    return [point for point in points if all(map(math.isfinite, point))]


Place = Callable[[float, float], tuple[float, float]]


def _scale(chart: Chart, x: tuple[float, float], y: tuple[float, float]) -> Place:
    x_unit = (chart.width - _LEFT - _RIGHT) / ((x[1] - x[0]) or 1)
    y_unit = (chart.height - _BOTTOM - _TOP) / ((y[1] - y[0]) or 1)
    return lambda a, b: (_LEFT + (a - x[0]) * x_unit, chart.height - _BOTTOM - (b - y[0]) * y_unit)


def _polyline(line: Line, place: Place) -> str:
    shown = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in thinned(line.points))
    return f'<polyline class="c{line.colour % 6} {line.kind}" points="{shown}"/>'


def _axes(chart: Chart, place: Place, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
    right, bottom = chart.width - _RIGHT, chart.height - _BOTTOM
    parts = []
    for value in y_ticks:
        y = place(0, value)[1]
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    for value in x_ticks:
        x = place(value, 0)[0]
        parts.append(f'<path class="tick" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(value)}</text>')
    if chart.level is not None:
        y = place(0, chart.level)[1]
        parts.append(f'<path class="level" d="M{_LEFT} {y:.1f}H{right}"/>')
    middle_x, middle_y = (_LEFT + right) / 2, (_TOP + bottom) / 2
    parts.append(
        f'<text x="{middle_x}" y="{chart.height - 6}" text-anchor="middle">{escape(chart.x_name)}</text>'
        f'<text transform="translate(11 {middle_y}) rotate(-90)" text-anchor="middle">{escape(chart.y_name)}</text>'
    )
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _legend(lines: Sequence[Line]) -> str:
    named = [line for line in lines if "faint" not in line.kind]
    items = "".join(
        f'<li><svg viewBox="0 0 28 8" aria-hidden="true"><path class="line c{line.colour % 6} {line.kind}" '
        f'd="M0 4H28"/></svg>{escape(line.name)}</li>'
        for line in named
    )
    return f'<ul class="legend">{items}</ul>' if len(named) > 1 else ""


def _description(chart: Chart, lines: Sequence[Line]) -> str:
    ends = [
        f"{line.name} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}"
        for line in lines
        if line.points and "faint" not in line.kind
    ]
    return f"{chart.title}, {chart.y_name} over {chart.x_name}: {'; '.join(ends)}"
