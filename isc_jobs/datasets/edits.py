"""Edited copies, made with AugLy: other code than the training views, and other operations."""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pylibmagic  # noqa: F401 - carries the libmagic that AugLy asks for
from PIL import Image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from augly import image as _augly_image

augly: Any = _augly_image  # it is only partly typed


@dataclass(frozen=True)
class Strength:
    """How much of a picture the edits leave; pairs are the bounds of a uniform draw."""

    edits: tuple[int, ...]  # how many, one of these at equal odds
    crop: tuple[float, float]  # of each side
    onto_background: tuple[float, float]  # of the background's height
    overlay: tuple[float, float]  # of the picture's height, covered by another
    degrees: tuple[float, float]
    quality: tuple[int, int]  # of the JPEG
    pixelization: tuple[float, float]  # of each side
    blur: tuple[float, float]  # pixels


STANDARD = Strength((1, 2, 2, 3, 3, 4), (0.5, 0.6), (0.5, 0.8), (0.3, 0.5), (5, 45), (8, 30), (0.2, 0.6), (1, 4))
HARD = Strength((3, 4, 5, 6), (0.3, 0.5), (0.3, 0.6), (0.4, 0.7), (15, 90), (3, 15), (0.1, 0.3), (2, 6))
STRENGTHS = {"standard": STANDARD, "hard": HARD}

_Edit = Callable[[Image.Image, Image.Image, random.Random, Strength], Any]


def _crop(image: Image.Image, _: Image.Image, rng: random.Random, strength: Strength) -> Any:
    most = 0.9 - strength.crop[0]
    x, y = rng.uniform(0, most), rng.uniform(0, most)
    x2, y2 = x + rng.uniform(*strength.crop), y + rng.uniform(*strength.crop)
    return augly.crop(image, x1=x, y1=y, x2=min(1.0, x2), y2=min(1.0, y2))


def _onto_background(image: Image.Image, other: Image.Image, rng: random.Random, strength: Strength) -> Any:
    size = rng.uniform(*strength.onto_background)
    return augly.overlay_onto_background_image(
        image, other, overlay_size=size, x_pos=rng.uniform(0, 1 - size), y_pos=rng.uniform(0, 1 - size)
    )


def _under(image: Image.Image, other: Image.Image, rng: random.Random, strength: Strength) -> Any:
    size = rng.uniform(*strength.overlay)
    return augly.overlay_image(
        image, other, overlay_size=size, opacity=rng.uniform(0.6, 1.0),
        x_pos=rng.uniform(0, 1 - size), y_pos=rng.uniform(0, 1 - size),
    )  # fmt: skip


def _colour(image: Image.Image, _: Image.Image, rng: random.Random, __: Strength) -> Any:
    factors = [rng.uniform(0.5, 1.6) for _ in range(3)]
    return augly.color_jitter(
        image, brightness_factor=factors[0], contrast_factor=factors[1], saturation_factor=factors[2]
    )


_EDITS: tuple[_Edit, ...] = (
    _crop,
    _onto_background,
    _under,
    _colour,
    lambda image, _, rng, strength: augly.rotate(
        image, degrees=rng.choice((-1, 1)) * rng.uniform(*strength.degrees)
    ),
    lambda image, _, __, ___: augly.hflip(image),
    lambda image, _, __, ___: augly.vflip(image),
    lambda image, _, rng, __: augly.pad(image, w_factor=rng.uniform(0.1, 0.4), h_factor=rng.uniform(0.1, 0.4)),
    lambda image, _, rng, strength: augly.encoding_quality(image, quality=rng.randint(*strength.quality)),
    lambda image, _, rng, strength: augly.pixelization(image, ratio=rng.uniform(*strength.pixelization)),
    lambda image, _, rng, strength: augly.blur(image, radius=rng.uniform(*strength.blur)),
    lambda image, _, rng, __: augly.sharpen(image, factor=rng.uniform(5, 20)),
    lambda image, _, __, ___: augly.grayscale(image),
    lambda image, _, rng, __: augly.change_aspect_ratio(image, ratio=rng.uniform(0.5, 2)),
    lambda image, _, rng, __: augly.overlay_stripes(
        image, line_width=rng.uniform(0.1, 0.4), line_opacity=rng.uniform(0.4, 0.9)
    ),
    lambda image, _, rng, __: augly.overlay_emoji(
        image, emoji_size=rng.uniform(0.2, 0.5), x_pos=rng.uniform(0, 0.6), y_pos=rng.uniform(0, 0.6)
    ),
    lambda image, _, rng, __: augly.overlay_text(
        image, text=[[rng.randrange(50) for _ in range(rng.randint(5, 12))]], font_size=rng.uniform(0.1, 0.25),
        x_pos=rng.uniform(0, 0.4), y_pos=rng.uniform(0, 0.7), color=tuple(rng.randrange(256) for _ in range(3)),
    ),
)  # fmt: skip


def edit(image: Image.Image, other: Image.Image, seed: int, strength: Strength = STANDARD) -> Image.Image:
    """Some random edits of an RGB picture; ``other`` may become background or overlay. Same seed, same picture."""
    rng = random.Random(seed)
    random.seed(seed)  # AugLy draws from the global generators
    np.random.seed(seed % (1 << 32))  # noqa: NPY002
    wanted = rng.choice(strength.edits)
    done = 0
    for operation in rng.sample(_EDITS, len(_EDITS)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                edited: Image.Image = operation(image, other, rng, strength).convert("RGB")
        except (ValueError, AssertionError, OSError, ZeroDivisionError):  # some refuse small or extreme pictures
            continue
        if min(edited.size) < 16:
            continue
        image, done = edited, done + 1
        if done == wanted:
            break
    image.thumbnail((512, 512))
    return image
