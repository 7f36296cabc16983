"""Where views take their pixels from: a picture, one rotated, or one with another on top.

Each is cropped before it is computed, at a reduced scale where the crop allows: what no view shows costs nothing.
Windows are (top, left, height, width) in pixels of the whole picture at its full scale.
"""

from dataclasses import dataclass
from typing import Protocol

from isc_jobs.vision import operations
from isc_jobs.vision.decode import Pixels, Window, cut, reduction_for, scaled
from isc_jobs.vision.resize import averaged, resize


class Source(Protocol):
    """A picture of a known size in pixels."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Columns."""

    def crop(self, window: Window, reduction: int = 1) -> Pixels:
        """The window; its sides may be divided by ``reduction``."""


class Rotated:
    """A source turned counter-clockwise and cut to what it fills."""

    def __init__(self, source: Source, degrees: float) -> None:
        """Nothing is turned before it is asked for."""
        self.height, self.width = operations.rotated_size(source.height, source.width, degrees)
        self._source, self._degrees = source, degrees

    def crop(self, window: Window, reduction: int = 1) -> Pixels:
        """Only the window is turned."""
        image = everything(self._source, reduction)
        size = operations.rotated_size(image.shape[0], image.shape[1], self._degrees)
        return operations.rotate(image, self._degrees, scaled(window, (self.height, self.width), size))


@dataclass(frozen=True)
class Overlaid:
    """One source on top of another: see operations.overlay."""

    ground: Source
    top: Source
    size: float
    opacity: float
    x: float
    y: float

    @property
    def height(self) -> int:
        """Rows of the ground."""
        return self.ground.height

    @property
    def width(self) -> int:
        """Columns of the ground."""
        return self.ground.width

    def crop(self, window: Window, reduction: int = 1) -> Pixels:
        """The window of both, the top at the scale that its size asks for."""
        ground = everything(self.ground, reduction)
        target = max(1, int(ground.shape[0] * self.size))
        top = everything(self.top, reduction_for(self.top.height, self.top.height, target))
        image = operations.overlay(ground, top, self.size, self.opacity, self.x, self.y)
        return cut(image, window, (self.height, self.width))


def resized_crop(source: Source, window: Window, size: int) -> Pixels:
    """(size, size, 3): the window, at the smallest scale that has as many pixels as asked for, resized."""
    part = source.crop(window, reduction_for(*window[2:], size))  # more, of what cannot be decoded at reduced scale
    return resize(averaged(part, reduction_for(part.shape[0], part.shape[1], size)), size, size, "bilinear")


def everything(source: Source, reduction: int = 1) -> Pixels:
    """The whole of a source."""
    return source.crop((0, 0, source.height, source.width), reduction)
