"""Encoded pictures of every shape and kind that a training set may hold."""

import io
from collections.abc import Callable
from functools import cache, partial

import numpy as np
from PIL import Image

_SHAPES = ((1, 1), (1, 2), (2, 1), (3, 3), (1, 300), (300, 1), (2, 77), (5, 7), (64, 64), (120, 90))
_MODES = ("L", "LA", "RGBA", "P", "1", "I;16")


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours and some noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return (
        small
        if width * height > 10_000_000
        else Image.fromarray(np.asarray(small) ^ rng.integers(0, 8, (height, width, 3), dtype=np.uint8))
    )


def _encoded(make: Callable[[], Image.Image], kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    make().save(data, kind, **options)
    return data.getvalue()


def _mode(mode: str, width: int, height: int) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.random.default_rng(0).integers(0, 65536, (height, width), dtype=np.uint16))
    return photo(width, height).convert(mode)


def _palette_with_transparency() -> Image.Image:
    image = photo(61, 43).convert("P")
    image.info["transparency"] = 3
    return image


def _frames(kind: str) -> bytes:
    frames = [photo(70, 40, seed) for seed in range(3)]
    return _encoded(lambda: frames[0], kind, save_all=True, append_images=frames[1:])


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encoded(lambda: photo(80, 50), "JPEG", exif=exif)


def _factories() -> dict[str, Callable[[], bytes]]:
    made: dict[str, Callable[[], bytes]] = {}
    for width, height in _SHAPES:
        made[f"{width}x{height}"] = partial(_encoded, partial(photo, width, height), "PNG")
    for mode in _MODES:
        made[f"mode {mode}"] = partial(_encoded, partial(_mode, mode, 61, 43), "PNG")
        made[f"mode {mode}, thin"] = partial(_encoded, partial(_mode, mode, 1, 43), "PNG")
    made |= {
        "palette with transparency": lambda: _encoded(_palette_with_transparency, "PNG", transparency=3),
        "CMYK JPEG": lambda: _encoded(lambda: photo(90, 60).convert("CMYK"), "JPEG"),
        "grey JPEG": lambda: _encoded(lambda: photo(90, 60).convert("L"), "JPEG"),
        "progressive JPEG": lambda: _encoded(lambda: photo(301, 207), "JPEG", progressive=True),
        "JPEG of one pixel": lambda: _encoded(lambda: photo(1, 1), "JPEG"),
        "JPEG on its side": _rotated,
        "CMYK TIFF": lambda: _encoded(lambda: photo(31, 20).convert("CMYK"), "TIFF"),
        "float TIFF": lambda: _encoded(lambda: photo(31, 20).convert("F"), "TIFF"),
        "bitmap": lambda: _encoded(lambda: photo(31, 20), "BMP"),
        "animated GIF": partial(_frames, "GIF"),
        "animated WebP": partial(_frames, "WEBP"),
        "animated PNG": partial(_frames, "PNG"),
        "black": lambda: _encoded(lambda: Image.new("RGB", (200, 100)), "PNG"),
        "white": lambda: _encoded(lambda: Image.new("L", (100, 200), 255), "PNG"),
        "3000x2 PNG": lambda: _encoded(lambda: photo(3000, 2), "PNG"),
        "2x3000 JPEG": lambda: _encoded(lambda: photo(2, 3000), "JPEG"),
        "photo": lambda: _encoded(lambda: photo(1024, 768), "JPEG"),
    }
    return made


_LARGE: dict[str, Callable[[], bytes]] = {
    "8000x6000 JPEG": lambda: _encoded(lambda: photo(8000, 6000), "JPEG"),
    "6000x8000 PNG": lambda: _encoded(lambda: photo(6000, 8000), "PNG", compress_level=1),
    "20000x3 JPEG": lambda: _encoded(lambda: photo(20_000, 3), "JPEG"),
    "3x20000 PNG": lambda: _encoded(lambda: photo(3, 20_000), "PNG"),
    "40000x1 PNG": lambda: _encoded(lambda: photo(40_000, 1), "PNG"),
}


@cache
def odd_pictures() -> dict[str, bytes]:
    """By name, each decoded in some milliseconds."""
    return {name: make() for name, make in _factories().items()}


@cache
def large_pictures() -> dict[str, bytes]:
    """By name, up to 48 million pixels."""
    return {name: make() for name, make in _LARGE.items()}
