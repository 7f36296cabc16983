"""Pixels as a source of views, at full scale only."""

from dataclasses import dataclass

from isc_jobs.vision.decode import Pixels, Window, cut


@dataclass(frozen=True)
class Whole:
    """A picture that is decoded already."""

    pixels: Pixels

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    def crop(self, window: Window, reduction: int = 1) -> Pixels:
        del reduction
        return cut(self.pixels, window, (self.height, self.width))
