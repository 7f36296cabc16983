"""Decoding of any picture to RGB, safely."""

import io
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from isc_jobs.spec.errors import DataError

Image.MAX_IMAGE_PIXELS = None  # the bound is a setting, checked before pixels are decoded
# By module and once: catch_warnings is not safe in the threads that decode.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
_FORMATS = {"AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"}
# Whatever Pillow's readers let through on damaged bytes.
_UNREADABLE = (OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
               MemoryError, EOFError, RuntimeError, struct.error)  # fmt: skip
_USUAL_SCANS = 20  # at most, of a progressive JPEG
Pixels = NDArray[np.uint8]
Window = tuple[int, int, int, int]  # top, left, height, width
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {  # by EXIF orientation
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
_LYING = {5, 6, 7, 8}  # orientations that swap width and height


class BadImage(DataError):
    """A picture that cannot be used, with the reason."""


class Encoded:
    """The bytes of a picture: its size, and its pixels when they are asked for, decoded once a scale.

    RGB, first frame, EXIF rotation applied, alpha dropped, 16 bits scaled to 8.
    """

    def __init__(self, data: bytes, max_pixels: int = 100_000_000) -> None:
        """Read a JPEG's header, decode what is no JPEG. Raises BadImage."""
        if not data:
            raise BadImage("empty file")
        with _opened(data) as image:
            if image.format not in _FORMATS:  # EPS would start Ghostscript
                raise BadImage(f"format {image.format} is none of {', '.join(sorted(_FORMATS))}")
            if image.width * image.height > max_pixels:
                raise BadImage(f"{image.width}x{image.height} is more than {max_pixels} pixels")
            if image.format in {"JPEG", "MPO"} and "progressive" in image.info:
                _check_scans(data, image.width * image.height, max_pixels)
            self._data, self._stored = data, image.size
            self._decoded: dict[int, Pixels] = {}
            if image.format == "JPEG":
                self._plain = image.mode in {"RGB", "L"}
                self._orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                self.width, self.height = reversed(image.size) if self._orientation in _LYING else image.size
            else:  # whose header does not always say how they are turned
                self._decoded[1] = np.array(_to_rgb(ImageOps.exif_transpose(image)))
                self.height, self.width = self._decoded[1].shape[:2]

    def pixels(self, reduction: int = 1) -> Pixels:
        """(height, width, 3), not to be changed; a JPEG's sides may be divided by ``reduction``: 1, 2, 4 or 8.

        What has been decoded at a finer scale is not decoded again. Raises BadImage.
        """
        finer = [by for by in self._decoded if by <= reduction]
        if finer:
            return self._decoded[max(finer)]
        plain = _decode_plain(self._data, self._stored, reduction) if self._plain else None
        turned = _TURNS.get(self._orientation)
        if plain is None:
            self._decoded[reduction] = self._decode_by_pillow(reduction)
        else:
            self._decoded[reduction] = np.ascontiguousarray(turned(plain)) if turned else plain
        return self._decoded[reduction]

    def crop(self, window: Window, reduction: int = 1) -> Pixels:
        """The part (top, left, height, width) of the whole picture, of which a JPEG's sides may be reduced."""
        return cut(self.pixels(reduction), window, (self.height, self.width))

    def check(self) -> None:
        """Raise BadImage where decoding the whole picture does.

        A JPEG is decoded to its end, but to grey pixels of an eighth of its size: damage shows as the codes are read.
        """
        if self._decoded:
            return
        if not self._plain or _decode_plain(self._data, self._stored, 8, "GRAY") is None:
            self._decode_by_pillow(1)

    def _decode_by_pillow(self, reduction: int) -> Pixels:
        with _opened(self._data) as image:
            if reduction > 1:
                image.draft("RGB", (max(1, image.width // reduction), max(1, image.height // reduction)))
            image.load()
            return np.array(_to_rgb(ImageOps.exif_transpose(image)))


def cut(pixels: Pixels, window: Window, whole: tuple[int, int]) -> Pixels:
    """The window of a picture (height, width) out of its pixels, which may be fewer."""
    top, left, height, width = scaled(window, whole, (pixels.shape[0], pixels.shape[1]))
    return pixels[top : top + height, left : left + width]


def scaled(window: Window, whole: tuple[int, int], size: tuple[int, int]) -> Window:
    """A window of a picture (height, width) in that picture at another size; at least one pixel."""
    top, left, height, width = window
    y, x = size[0] / whole[0], size[1] / whole[1]
    first, start = min(size[0] - 1, round(top * y)), min(size[1] - 1, round(left * x))
    last, end = min(size[0], round((top + height) * y)), min(size[1], round((left + width) * x))
    return first, start, max(1, last - first), max(1, end - start)


def reduction_for(height: int, width: int, size: int) -> int:
    """The largest reduction of a window's sides after which neither is below ``size``."""
    return next((by for by in (8, 4, 2) if min(height, width) >= by * size), 1)


def decode_rgb(data: bytes, max_pixels: int = 100_000_000, *, reduce_to: int | None = None) -> Image.Image:
    """RGB picture of encoded bytes, as Encoded has it.

    ``reduce_to``: a JPEG may come smaller, but no side smaller than twice this. Raises BadImage.
    """
    encoded = Encoded(data, max_pixels)
    reduction = 1 if reduce_to is None else reduction_for(encoded.height, encoded.width, 2 * reduce_to)
    return Image.fromarray(encoded.pixels(reduction))


def check_picture(data: bytes, max_pixels: int = 100_000_000) -> tuple[int, int]:
    """Width and height of the picture that ``decode_rgb`` makes of these bytes; raises BadImage where it does."""
    encoded = Encoded(data, max_pixels)
    encoded.check()
    return encoded.width, encoded.height


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """A picture that is read as far as needed; what that raises becomes BadImage."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except UnidentifiedImageError as error:
        raise BadImage("no known image format") from error
    except _UNREADABLE as error:
        raise BadImage(f"cannot be decoded: {' '.join(str(error).split())[:120]}") from error


def _check_scans(data: bytes, pixels: int, max_pixels: int) -> None:
    """Raises BadImage for a progressive JPEG whose scans go over its pixels again and again.

    Encoders write about ten of them, and a few kB may hold thousands.
    """
    scans = data.count(b"\xff\xda")  # which nothing but a scan's head is, or a thumbnail's
    if scans > _USUAL_SCANS and scans * pixels > _USUAL_SCANS * max_pixels:
        raise BadImage(f"{scans} scans over {pixels} pixels are more than a picture needs")


def _decode_plain(data: bytes, size: tuple[int, int], reduction: int, colours: str = "RGB") -> Pixels | None:
    """A JPEG by libjpeg-turbo without Pillow's copies, the same to the bit; None if it warns: Pillow then decides."""
    width, height = size
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, colours, min_height=-(-height // reduction), min_width=-(-width // reduction)
        )
    except ValueError:
        return None
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        high = 65535.0 if image.mode.startswith("I") and values.max(initial=0) > 255 else 255.0
        image = Image.fromarray((values.clip(0, high) * (255.0 / high)).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")
