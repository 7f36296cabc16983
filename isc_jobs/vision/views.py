"""The moderate and the hard training view of a picture: what is drawn, and in which order it is applied.

Operations, order and distributions are the recipe's (arXiv:2112.04323, section 3.1); what it leaves open is AugLy
1.0.0's and torchvision's default. All is drawn from the given generator. On purpose it differs in three things: the
pixels that are shuffled are drawn anew, where AugLy seeds its generator at each call and always moves the same;
erased pixels are cut to 0-255, for views are bytes; and no picture, of any size from 1 pixel on, raises an error.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from isc_jobs.spec.settings import Views
from isc_jobs.vision import assets, operations
from isc_jobs.vision.decode import Pixels, Window
from isc_jobs.vision.sources import Overlaid, Rotated, Source, resized_crop

_QUALITIES = (10, 20, 30, 50)


def moderate_view(picture: Source, size: int, rng: Generator) -> Pixels:
    """(size, size, 3): random resized crop of 70-100% of the area, flipped half the time."""
    view = _random_resized_crop(picture, size, 0.7, rng)
    return operations.flip(view, 1) if rng.random() < 0.5 else view


def hard_view(picture: Source, other: Callable[[], Source], size: int, views: Views, rng: Generator) -> Pixels:
    """(size, size, 3): the picture, perhaps rotated, overlaid with ``other``, cropped and edited in random order.

    ``other`` is called only if its picture is needed, which is seldom.
    """
    if rng.random() < views.probability:
        picture = Rotated(picture, rng.uniform(0, 180))
    if rng.random() < views.overlay_probability:
        image = _random_resized_crop(_overlay(picture, other(), views, rng), size, 0.7, rng)
    else:
        image = _random_resized_crop(picture, size, 0.15, rng)
    for index in rng.permutation(len(_EDITS)):
        probability, edit = _EDITS[index]
        if rng.random() < probability(views):
            image = edit(image, views, rng)
    if rng.random() < views.erase_probability:
        image = _erase(image, rng)
    return np.ascontiguousarray(image)


def _random_resized_crop(picture: Source, size: int, low: float, rng: Generator) -> Pixels:
    return resized_crop(picture, _random_window(picture.height, picture.width, low, rng), size)


def _random_window(height: int, width: int, low: float, rng: Generator) -> Window:
    """torchvision's: low-1 of the area and aspect 3/4-4/3, ten tries, else the largest central one."""
    for _ in range(10):
        area = height * width * rng.uniform(low, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return top, left, h, w
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    return (height - h) // 2, (width - w) // 2, h, w


def _overlay(picture: Source, other: Source, views: Views, rng: Generator) -> Source:
    """One photo on top of the other, which way being even odds, placed so that a square one fits."""
    top, ground = (picture, other) if rng.random() < 0.5 else (other, picture)
    size = rng.uniform(views.overlay_size.low, views.overlay_size.high)
    opacity = rng.uniform(views.overlay_min_opacity, 1.0)
    x, y = rng.uniform(0, max(0.0, 1 - size)), rng.uniform(0, max(0.0, 1 - size))
    return Overlaid(ground, top, size, opacity, x, y)


def _color_jitter(image: Pixels, views: Views, rng: Generator) -> Pixels:
    """Brightness, contrast and saturation by 1 +- jitter, hue by +-0.2 turns, in random order."""
    adjust = (
        operations.adjust_brightness, operations.adjust_contrast, operations.adjust_saturation, operations.adjust_hue,
    )  # fmt: skip
    amounts = (*rng.uniform(max(0.0, 1 - views.jitter), 1 + views.jitter, 3), rng.uniform(-0.2, 0.2))
    for index in rng.permutation(4):
        image = adjust[index](image, float(amounts[index]))
    return image


def _shuffle(image: Pixels, _: Views, rng: Generator) -> Pixels:
    """A tenth of the pixels change places with each other."""
    count = image.shape[0] * image.shape[1]
    sources = rng.choice(count, count // 10, replace=False)
    chosen = np.zeros(count, np.bool_)
    chosen[sources] = True
    return operations.shuffle_pixels(image, np.flatnonzero(chosen), sources)


def _perspective(image: Pixels, _: Views, rng: Generator) -> Pixels:
    """Corners moved inwards by up to a quarter of each side: torchvision's default distortion, 0.5."""
    height, width = image.shape[:2]
    inwards = rng.integers(0, (width // 2 // 2, height // 2 // 2), (4, 2), endpoint=True)
    far = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    return operations.perspective(image, np.where(far, (width - 1, height - 1) - inwards, inwards))


def _text(image: Pixels, _: Views, rng: Generator) -> Pixels:
    """1-2 lines of 5-9 of the font's characters, in a random colour, begun in the upper left quarter."""
    fonts = assets.fonts()
    font = fonts[int(rng.integers(len(fonts)))]
    characters = assets.characters(font)
    size, x, y = rng.uniform(0.1, 0.3), rng.uniform(0, 0.5), rng.uniform(0, 0.5)
    red, green, blue = (int(level) for level in rng.integers(0, 256, 3))
    lines = [
        "".join(characters[index] for index in rng.integers(len(characters), size=int(rng.integers(5, 10))))
        for _ in range(int(rng.integers(1, 3)))
    ]
    return operations.overlay_text(image, lines, font, size, (red, green, blue), x, y)


def _emoji(image: Pixels, _: Views, rng: Generator) -> Pixels:
    """A smiley of 10-30% of the height whose upper left corner is anywhere."""
    sprites = assets.emoji()
    sprite = sprites[int(rng.integers(len(sprites)))]
    return operations.overlay_emoji(image, sprite, rng.uniform(0.1, 0.3), rng.uniform(0, 1), rng.uniform(0, 1))


def _erase(image: Pixels, rng: Generator) -> Pixels:
    """A rectangle of 2-33% of the area and aspect .3-3.3 becomes normal noise, ten tries."""
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(0.02, 0.33)
        aspect = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return operations.erase(image, top, left, rng.standard_normal((h, w, 3), np.float32))
    return image


_Edit = Callable[[Pixels, Views, Generator], Pixels]
_EDITS: tuple[tuple[Callable[[Views], float], _Edit], ...] = (
    (lambda _: 1.0, _color_jitter),
    (lambda views: views.fixed_probability, lambda image, _, rng: operations.pixelize(image, rng.uniform(0.1, 1.0))),
    (lambda views: views.fixed_probability, _shuffle),
    (
        lambda views: views.encoding_probability,
        lambda image, _, rng: operations.encode(image, _QUALITIES[int(rng.integers(len(_QUALITIES)))]),
    ),
    (lambda views: views.fixed_probability, lambda image, _, __: operations.grayscale(image)),
    (lambda views: views.fixed_probability, lambda image, _, rng: operations.blur(image, rng.uniform(0, 10))),
    (lambda views: views.probability, _perspective),
    (lambda _: 0.5, lambda image, _, __: operations.flip(image, 1)),
    (lambda _: 0.1, lambda image, _, __: operations.flip(image, 0)),
    (lambda views: views.probability, _text),
    (lambda views: views.probability, _emoji),
    (
        lambda views: views.edge_probability,
        lambda image, _, rng: operations.edge_enhance(image, more=bool(rng.random() < 0.5)),
    ),
)
