"""The moderate and the hard training view of a picture.

Operations, their order and their distributions are the recipe's (arXiv:2112.04323, section 3.1). All work on
(height, width, 3) uint8 arrays, draw only from the given generator, and take any size from 1 pixel on.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from isc_jobs.spec.settings import Views
from isc_jobs.vision import drawing

Pixels = NDArray[np.uint8]
_JPEG_QUALITIES = (10, 20, 30, 50)
_EDGE_ENHANCE = np.array([[-1, -1, -1], [-1, 10, -1], [-1, -1, -1]], np.float32) / 2
_EDGE_ENHANCE_MORE = np.array([[-1, -1, -1], [-1, 9, -1], [-1, -1, -1]], np.float32)


def moderate_view(image: Pixels, size: int, rng: Generator) -> Pixels:
    """(size, size, 3): random resized crop of 70-100% of the area, flipped half the time."""
    view = random_resized_crop(image, size, 0.7, rng)
    return flip(view, 1) if rng.random() < 0.5 else view


def hard_view(image: Pixels, other: Callable[[], Pixels], size: int, views: Views, rng: Generator) -> Pixels:
    """(size, size, 3): the picture, perhaps rotated, overlaid with ``other``, cropped and edited in random order.

    ``other`` is called only if its picture is needed, which is seldom.
    """
    if rng.random() < views.probability:
        image = rotate(image, rng.uniform(0, 180))
    if rng.random() < views.overlay_probability:
        image = random_resized_crop(_overlay(image, other(), views, rng), size, 0.7, rng)
    else:
        image = random_resized_crop(image, size, 0.15, rng)
    for index in rng.permutation(len(_EDITS)):
        probability, edit = _EDITS[index]
        if rng.random() < probability(views):
            image = edit(image, views, rng)
    if rng.random() < views.erase_probability:
        image = erase(image, rng)
    return np.ascontiguousarray(image)


def random_resized_crop(image: Pixels, size: int, low: float, rng: Generator) -> Pixels:
    """(size, size, 3): a window of low-1 of the area and aspect 3/4-4/3, ten tries, else the largest central one."""
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(low, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return resize(image[top : top + h, left : left + w], size, size)
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    top, left = (height - h) // 2, (width - w) // 2
    return resize(image[top : top + h, left : left + w], size, size)


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """(height, width, 3): area average when shrinking, linear when growing."""
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return _pixels(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def flip(image: Pixels, axis: int) -> Pixels:
    """Mirrored: axis 1 left to right, axis 0 upside down."""
    return np.ascontiguousarray(np.flip(image, axis))


def rotate(image: Pixels, degrees: float) -> Pixels:
    """Rotated, cut to the largest upright rectangle without empty corners."""
    height, width = image.shape[:2]
    angle = math.radians(degrees)
    sine, cosine = abs(math.sin(angle)), abs(math.cos(angle))
    full = round(width * cosine + height * sine), round(width * sine + height * cosine)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    matrix[:, 2] += (full[0] - width) / 2, (full[1] - height) / 2
    turned = cv2.warpAffine(image, matrix, (max(1, full[0]), max(1, full[1])), flags=cv2.INTER_LINEAR)
    w, h = _inscribed(width, height, sine, cosine)
    left, top = (turned.shape[1] - w) // 2, (turned.shape[0] - h) // 2
    return _pixels(turned[top : top + h, left : left + w])


def _inscribed(width: int, height: int, sine: float, cosine: float) -> tuple[int, int]:
    """Width and height of the largest upright rectangle within a rotated one."""
    long, short = max(width, height), min(width, height)
    if short <= 2 * sine * cosine * long or abs(sine - cosine) < 1e-10:
        half = short / 2
        w, h = (half / sine, half / cosine) if width >= height else (half / cosine, half / sine)
    else:
        double = cosine * cosine - sine * sine
        w, h = (width * cosine - height * sine) / double, (height * cosine - width * sine) / double
    return max(1, int(w)), max(1, int(h))


def _overlay(image: Pixels, other: Pixels, views: Views, rng: Generator) -> Pixels:
    """One photo on top of the other, which way being even odds; size is a share of the background's height."""
    top, ground = (image, other) if rng.random() < 0.5 else (other, image)
    height, width = ground.shape[:2]
    share = rng.uniform(views.overlay_size.low, views.overlay_size.high)
    opacity = rng.uniform(views.overlay_min_opacity, 1.0)
    h = min(height, max(1, round(height * share)))
    w = min(width, max(1, round(h * top.shape[1] / top.shape[0])))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    result = ground.copy()
    window = result[y : y + h, x : x + w]
    result[y : y + h, x : x + w] = cv2.addWeighted(resize(top, h, w), opacity, window, 1 - opacity, 0)
    return result


def color_jitter(image: Pixels, views: Views, rng: Generator) -> Pixels:
    """Brightness, contrast and saturation by 1 +- jitter, hue by +-0.2 turns, in random order."""
    for index in rng.permutation(4):
        factor = rng.uniform(max(0.0, 1 - views.jitter), 1 + views.jitter)
        if index == 0:
            image = _blend(image, np.zeros_like(image), factor)
        elif index == 1:
            image = _blend(image, np.full_like(image, round(float(_gray(image).mean()))), factor)
        elif index == 2:
            image = _blend(image, grayscale(image, views, rng), factor)
        else:
            image = shift_hue(image, rng.uniform(-0.2, 0.2))
    return image


def shift_hue(image: Pixels, turns: float) -> Pixels:
    """Hue moved by a share of the colour circle."""
    hsv = _pixels(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL))
    hsv[..., 0] += np.uint8(round(turns * 256) % 256)
    return _pixels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def pixelize(image: Pixels, _: Views, rng: Generator) -> Pixels:
    """Shrunk to 10-100% and grown again in blocks."""
    height, width = image.shape[:2]
    ratio = rng.uniform(0.1, 1.0)
    small = resize(image, max(1, int(height * ratio)), max(1, int(width * ratio)))
    return _pixels(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST))


def shuffle_pixels(image: Pixels, _: Views, rng: Generator) -> Pixels:
    """A tenth of the pixels change places with each other."""
    flat = image.reshape(-1, 3).copy()
    chosen = rng.choice(len(flat), len(flat) // 10, replace=False, shuffle=True)
    flat[np.sort(chosen)] = flat[chosen]
    return flat.reshape(image.shape)


def encode(image: Pixels, _: Views, rng: Generator) -> Pixels:
    """As a JPEG of quality 10, 20, 30 or 50 shows it."""
    quality = _JPEG_QUALITIES[int(rng.integers(len(_JPEG_QUALITIES)))]
    data = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return _pixels(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])


def grayscale(image: Pixels, _: Views, __: Generator) -> Pixels:
    """Luma in all three channels."""
    return np.repeat(_gray(image)[..., None], 3, axis=2)


def blur(image: Pixels, _: Views, rng: Generator) -> Pixels:
    """Gaussian blur of radius 0.1-2 pixels."""
    return _pixels(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.1, 2.0)))


def perspective(image: Pixels, _: Views, rng: Generator) -> Pixels:
    """Corners moved inwards by up to a quarter of each side (torchvision's distortion 0.5), outside black."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32)
    moved = corners + inwards * (rng.uniform(0, 0.25, (4, 2)) * (width, height)).astype(np.float32)
    if min(height, width) < 8:
        return image
    return _pixels(cv2.warpPerspective(image, cv2.getPerspectiveTransform(corners, moved), (width, height)))


def edge_enhance(image: Pixels, _: Views, rng: Generator) -> Pixels:
    """Pillow's kernels EDGE_ENHANCE or EDGE_ENHANCE_MORE."""
    return _pixels(cv2.filter2D(image, -1, _EDGE_ENHANCE if rng.random() < 0.5 else _EDGE_ENHANCE_MORE))


def erase(image: Pixels, rng: Generator) -> Pixels:
    """A rectangle of 2-33% of the area and aspect .3-3.3 filled with noise, ten tries."""
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(0.02, 0.33)
        aspect = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            result = image.copy()
            # Normal noise of the normalised picture (mean = std = .5).
            result[y : y + h, x : x + w] = (rng.standard_normal((h, w, 3)) * 127.5 + 127.5).clip(0, 255)
            return result
    return image


_Edit = Callable[[Pixels, Views, Generator], Pixels]
_EDITS: tuple[tuple[Callable[[Views], float], _Edit], ...] = (
    (lambda _: 1.0, color_jitter),
    (lambda views: views.fixed_probability, pixelize),
    (lambda views: views.fixed_probability, shuffle_pixels),
    (lambda views: views.encoding_probability, encode),
    (lambda views: views.fixed_probability, grayscale),
    (lambda views: views.fixed_probability, blur),
    (lambda views: views.probability, perspective),
    (lambda _: 0.5, lambda image, _, __: flip(image, 1)),
    (lambda _: 0.1, lambda image, _, __: flip(image, 0)),
    (lambda views: views.probability, lambda image, _, rng: drawing.text(image, rng)),
    (lambda views: views.probability, lambda image, _, rng: drawing.emoji(image, rng)),
    (lambda views: views.edge_probability, edge_enhance),
)


def _gray(image: Pixels) -> Pixels:
    return _pixels(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _blend(image: Pixels, base: Pixels, factor: float) -> Pixels:
    return _pixels(cv2.addWeighted(image, factor, base, 1 - factor, 0))


def _pixels(array: object) -> Pixels:
    """What OpenCV returns, by its type."""
    return np.asarray(array, dtype=np.uint8)
