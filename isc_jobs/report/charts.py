"""Line charts as inline SVG, coloured by the page's CSS variables."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 480, 260, 48, 30, 10
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A named curve; ``faint`` ones lie behind and are not in the legend."""

    name: str
    points: Points
    faint: bool = False
    colour: int = 0


def line_chart(title: str, x_name: str, lines: Sequence[Line], y_range: tuple[float, float] | None = None) -> str:
    """A figure with axes, curves and legend."""
    drawn = [point for line in lines for point in line.points]
    if not drawn:
        return ""
    x_low, x_high = min(x for x, _ in drawn), max(x for x, _ in drawn)
    y_low, y_high = y_range or (min(0.0, *(y for _, y in drawn)), max(y for _, y in drawn) * 1.05)
    scale_x = (_WIDTH - _LEFT - 10) / ((x_high - x_low) or 1)
    scale_y = (_HEIGHT - _BOTTOM - _TOP) / ((y_high - y_low) or 1)

    def place(point: tuple[float, float]) -> str:
        return f"{_LEFT + (point[0] - x_low) * scale_x:.1f},{_HEIGHT - _BOTTOM - (point[1] - y_low) * scale_y:.1f}"

    parts = [_axes(x_low, x_high, y_low, y_high, x_name)]
    for line in lines:
        shown = " ".join(place(point) for point in thinned(line.points))
        parts.append(f'<polyline class="c{line.colour % 6}{" faint" if line.faint else ""}" points="{shown}"/>')
    legend = "".join(f'<li class="c{line.colour % 6}">{escape(line.name)}</li>' for line in lines if not line.faint)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg><ul class="legend">{legend}</ul></figure>'
    )


def smoothed(points: Points, weight: float = 0.9) -> list[tuple[float, float]]:
    """Exponential moving average."""
    result: list[tuple[float, float]] = []
    for x, y in points:
        result.append((x, y if not result else weight * result[-1][1] + (1 - weight) * y))
    return result


def thinned(points: Points, most: int = 400) -> Points:
    """At most so many points, ends included."""
    if len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    return [points[round(index * step)] for index in range(most)]


def _axes(x_low: float, x_high: float, y_low: float, y_high: float, x_name: str) -> str:
    parts = []
    for index in range(5):
        share = index / 4
        x = _LEFT + share * (_WIDTH - _LEFT - 10)
        y = _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - 10}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{y_low + share * (y_high - y_low):.3g}</text>'
        )
        label = f"{x_low + share * (x_high - x_low):.3g}"
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 2}" text-anchor="end">{escape(x_name)}</text>')
    return "".join(parts)
