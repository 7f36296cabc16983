"""Low and high of a quantity that is not known better."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """A closed interval of positive numbers."""

    low: float
    high: float

    def __add__(self, other: "Bounds | float") -> "Bounds":
        """Of a sum, both ends alike."""
        other = exactly(other)
        return Bounds(self.low + other.low, self.high + other.high)

    def __mul__(self, other: "Bounds | float") -> "Bounds":
        """Of a product."""
        other = exactly(other)
        return Bounds(self.low * other.low, self.high * other.high)

    def __rtruediv__(self, amount: float) -> "Bounds":
        """An amount at this rate: the time it takes."""
        return Bounds(amount / self.high, amount / self.low)

    def __truediv__(self, other: "Bounds | float") -> "Bounds":
        """Of a quotient."""
        other = exactly(other)
        return Bounds(self.low / other.high, self.high / other.low)

    @property
    def middle(self) -> float:
        """Geometric mean, by which two are compared."""
        return math.sqrt(self.low * self.high)


def exactly(value: "Bounds | float") -> Bounds:
    """A number as an interval."""
    return value if isinstance(value, Bounds) else Bounds(float(value), float(value))


def slowest(times: Iterable[Bounds]) -> Bounds:
    """Of what goes on at the same time: the longest, both ends alike; 0 of nothing."""
    each = list(times)
    return Bounds(max((time.low for time in each), default=0.0), max((time.high for time in each), default=0.0))


def total(parts: Iterable[Bounds]) -> Bounds:
    """Of what comes one after the other."""
    return sum(parts, start=exactly(0.0))
