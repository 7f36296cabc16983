"""Edited copies, made with AugLy: other code than the training views, and other operations."""

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pylibmagic  # noqa: F401 - carries the libmagic that AugLy asks for
from PIL import Image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from augly import image as _augly_image

augly: Any = _augly_image  # it is only partly typed

_Edit = Callable[[Image.Image, Image.Image, random.Random], Any]


def _crop(image: Image.Image, _: Image.Image, rng: random.Random) -> Any:
    x, y = rng.uniform(0, 0.4), rng.uniform(0, 0.4)
    return augly.crop(image, x1=x, y1=y, x2=x + rng.uniform(0.5, 0.6), y2=y + rng.uniform(0.5, 0.6))


def _onto_background(image: Image.Image, other: Image.Image, rng: random.Random) -> Any:
    size = rng.uniform(0.5, 0.8)
    return augly.overlay_onto_background_image(
        image, other, overlay_size=size, x_pos=rng.uniform(0, 1 - size), y_pos=rng.uniform(0, 1 - size)
    )


def _under(image: Image.Image, other: Image.Image, rng: random.Random) -> Any:
    size = rng.uniform(0.3, 0.5)
    return augly.overlay_image(
        image, other, overlay_size=size, opacity=rng.uniform(0.6, 1.0),
        x_pos=rng.uniform(0, 1 - size), y_pos=rng.uniform(0, 1 - size),
    )  # fmt: skip


def _colour(image: Image.Image, _: Image.Image, rng: random.Random) -> Any:
    factors = [rng.uniform(0.5, 1.6) for _ in range(3)]
    return augly.color_jitter(
        image, brightness_factor=factors[0], contrast_factor=factors[1], saturation_factor=factors[2]
    )


_EDITS: tuple[_Edit, ...] = (
    _crop,
    _onto_background,
    _under,
    _colour,
    lambda image, _, rng: augly.rotate(image, degrees=rng.choice((-1, 1)) * rng.uniform(5, 45)),
    lambda image, _, __: augly.hflip(image),
    lambda image, _, __: augly.vflip(image),
    lambda image, _, rng: augly.pad(image, w_factor=rng.uniform(0.1, 0.4), h_factor=rng.uniform(0.1, 0.4)),
    lambda image, _, rng: augly.encoding_quality(image, quality=rng.randint(8, 30)),
    lambda image, _, rng: augly.pixelization(image, ratio=rng.uniform(0.2, 0.6)),
    lambda image, _, rng: augly.blur(image, radius=rng.uniform(1, 4)),
    lambda image, _, rng: augly.sharpen(image, factor=rng.uniform(5, 20)),
    lambda image, _, __: augly.grayscale(image),
    lambda image, _, rng: augly.change_aspect_ratio(image, ratio=rng.uniform(0.5, 2)),
    lambda image, _, rng: augly.overlay_stripes(
        image, line_width=rng.uniform(0.1, 0.4), line_opacity=rng.uniform(0.4, 0.9)
    ),
    lambda image, _, rng: augly.overlay_emoji(
        image, emoji_size=rng.uniform(0.2, 0.5), x_pos=rng.uniform(0, 0.6), y_pos=rng.uniform(0, 0.6)
    ),
    lambda image, _, rng: augly.overlay_text(
        image, text=[[rng.randrange(50) for _ in range(rng.randint(5, 12))]], font_size=rng.uniform(0.1, 0.25),
        x_pos=rng.uniform(0, 0.4), y_pos=rng.uniform(0, 0.7), color=tuple(rng.randrange(256) for _ in range(3)),
    ),
)  # fmt: skip


def edit(image: Image.Image, other: Image.Image, seed: int) -> Image.Image:
    """1-4 random edits of an RGB picture; ``other`` may become background or overlay. Same seed, same picture."""
    rng = random.Random(seed)
    random.seed(seed)  # AugLy draws from the global generators
    np.random.seed(seed % (1 << 32))  # noqa: NPY002
    wanted = rng.choice((1, 2, 2, 3, 3, 4))
    done = 0
    for operation in rng.sample(_EDITS, len(_EDITS)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                edited: Image.Image = operation(image, other, rng).convert("RGB")
        except (ValueError, AssertionError, OSError, ZeroDivisionError):  # some refuse small or extreme pictures
            continue
        if min(edited.size) < 16:
            continue
        image, done = edited, done + 1
        if done == wanted:
            break
    image.thumbnail((512, 512))
    return image
