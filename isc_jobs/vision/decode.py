"""Decoding of any picture to RGB, safely."""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
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
_TURNED = {5, 6, 7, 8}  # EXIF orientations that exchange width and height
Pixels = NDArray[np.uint8]


class BadImage(DataError):
    """A picture that cannot be used, with the reason."""


def decode_rgb(data: bytes, max_pixels: int = 100_000_000, *, reduce_to: int | None = None) -> Image.Image:
    """RGB picture of encoded bytes: first frame, EXIF rotation applied, alpha dropped, 16 bits scaled to 8.

    ``reduce_to``: a JPEG may come smaller, but no side smaller than twice this. Raises BadImage.
    """
    with _opened(data, max_pixels) as image:
        if reduce_to is not None and image.format == "JPEG":
            image.draft("RGB", (2 * reduce_to, 2 * reduce_to))
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


def check_picture(data: bytes, max_pixels: int = 100_000_000) -> tuple[int, int]:
    """Width and height of the picture that ``decode_rgb`` makes of these bytes; raises BadImage where it does.

    A JPEG is decoded to its end, but to grey pixels of an eighth of its size: damage shows as the codes are read,
    which takes two fifths of the time of a whole decoding.
    """
    with _opened(data, max_pixels) as image:
        if image.format != "JPEG":
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image)).size
        width, height = image.size
        image.draft("L", (1, 1))
        image.load()
        turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
        ImageOps.exif_transpose(image, in_place=True)
        return (height, width) if turned else (width, height)


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """A picture not yet decoded; whatever fails until it is closed becomes a BadImage."""
    if not data:
        raise BadImage("empty file")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format not in _FORMATS:  # EPS would start Ghostscript
                raise BadImage(f"format {image.format} is none of {', '.join(sorted(_FORMATS))}")
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise BadImage(f"{image.width}x{image.height} is more than {max_pixels} pixels")
            yield image
    except UnidentifiedImageError as error:
        raise BadImage("no known image format") from error
    except _UNREADABLE as error:
        raise BadImage(f"cannot be decoded: {' '.join(str(error).split())[:120]}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        high = 65535.0 if image.mode.startswith("I") and values.max(initial=0) > 255 else 255.0
        image = Image.fromarray((values.clip(0, high) * (255.0 / high)).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def load_resized(data: bytes, size: int) -> Pixels:
    """(size, size, 3) uint8: the whole picture, aspect ignored, as at evaluation. Raises BadImage."""
    image = decode_rgb(data, reduce_to=size)
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR))
