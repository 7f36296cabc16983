"""Text and emoji drawn over a picture. Glyphs come from the fonts that Pillow and OpenCV carry; emoji are
round faces drawn here, since no emoji font may be assumed on the machine.
"""

import string
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
_GLYPHS = string.ascii_letters + string.digits + "!?&%#+-.,:;"
_HERSHEY = (
    cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)  # fmt: skip


def text(image: Pixels, rng: Generator) -> Pixels:
    """1-2 lines of 5-9 glyphs in a random font and colour, 10-30% of the height, anywhere."""
    height, width = image.shape[:2]
    size = max(4, round(height * rng.uniform(0.1, 0.3)))
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    lines = ["".join(rng.choice(list(_GLYPHS), int(rng.integers(5, 10)))) for _ in range(int(rng.integers(1, 3)))]
    x, y = int(rng.integers(-width // 4, max(1, width // 2))), int(rng.integers(0, max(1, height - size)))
    font = int(rng.integers(len(_HERSHEY) + 1))
    if font == len(_HERSHEY):
        return _pillow_text(image, lines, (x, y), size, colour)
    result = image.copy()
    for number, line in enumerate(lines):
        place = (x, y + size + round(1.2 * size * number))
        cv2.putText(result, line, place, _HERSHEY[font], size / 30, colour, max(1, size // 12), cv2.LINE_AA)
    return result


def emoji(image: Pixels, rng: Generator) -> Pixels:
    """A round face, 10-30% of the height, anywhere."""
    height, width = image.shape[:2]
    size = min(height, width, max(3, round(height * rng.uniform(0.1, 0.3))))
    y, x = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    face = _face(int(rng.integers(6)), int(rng.integers(4)))
    sprite = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha = sprite[..., 3:] / 255
    result = image.copy()
    window = result[y : y + size, x : x + size]
    result[y : y + size, x : x + size] = (sprite[..., :3] * alpha + window * (1 - alpha)).round()
    return result


def _pillow_text(image: Pixels, lines: list[str], at: tuple[int, int], size: int, colour: tuple[int, ...]) -> Pixels:
    canvas = Image.fromarray(image)
    ImageDraw.Draw(canvas).multiline_text(at, "\n".join(lines), fill=colour, font=_font(size))
    return np.asarray(canvas)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@lru_cache(maxsize=32)
def _face(tint: int, mood: int) -> NDArray[np.uint8]:
    """(128, 128, 4) RGBA sprite."""
    tints = ((255, 204, 50), (255, 120, 90), (120, 200, 90), (250, 170, 190), (140, 160, 250), (240, 240, 240))
    sprite = np.zeros((128, 128, 4), np.uint8)
    cv2.circle(sprite, (64, 64), 60, (*tints[tint], 255), -1, cv2.LINE_AA)
    dark = (60, 40, 20, 255)
    for x in (44, 84):
        cv2.ellipse(sprite, (x, 50), (7, 3 if mood == 3 else 11), 0, 0, 360, dark, -1, cv2.LINE_AA)
    if mood == 0:
        cv2.ellipse(sprite, (64, 74), (30, 24), 0, 10, 170, dark, 6, cv2.LINE_AA)
    elif mood == 1:
        cv2.ellipse(sprite, (64, 104), (26, 20), 0, 190, 350, dark, 6, cv2.LINE_AA)
    else:
        cv2.ellipse(sprite, (64, 88), (14, 6 if mood == 3 else 16), 0, 0, 360, dark, -1, cv2.LINE_AA)
    return sprite
