"""What the views do to a picture: each operation is a function of the picture and explicit parameters.

The pictures are those of the libraries that the recipe's author used: AugLy 1.0.0, torchvision and Pillow. Where
Pillow is fast enough it is called, so nothing differs; elsewhere OpenCV, torch or libjpeg-turbo does the same, and
sometimes rounds differently. Pictures are (height, width, 3) uint8 arrays of any size from 1 pixel on, and are never
changed in place.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from isc_jobs.vision.decode import Pixels, Window
from isc_jobs.vision.resize import resize

_EDGE_ENHANCE = np.array([[-1, -1, -1], [-1, 10, -1], [-1, -1, -1]], np.float32) / 2
_EDGE_ENHANCE_MORE = np.array([[-1, -1, -1], [-1, 9, -1], [-1, -1, -1]], np.float32)
_LEVELS = np.arange(256, dtype=np.float32)


def flip(image: Pixels, axis: int) -> Pixels:
    """Mirrored: axis 1 left to right, axis 0 upside down."""
    return _pixels(cv2.flip(image, axis))


def rotated_size(height: int, width: int, degrees: float) -> tuple[int, int]:
    """Height and width of a picture after rotate()."""
    left, top, right, bottom, _ = _rotated_box(height, width, degrees)
    return bottom - top, right - left


def rotate(image: Pixels, degrees: float, window: Window | None = None) -> Pixels:
    """AugLy's rotate: counter-clockwise, nearest pixels, cut to the largest upright rectangle without empty corners.

    Only that rectangle is computed, or its ``window``: a long and thin picture would need a square of its length.
    """
    height, width = image.shape[:2]
    left, top, right, bottom, (middle_x, middle_y) = _rotated_box(height, width, degrees)
    row, column, h, w = (0, 0, bottom - top, right - left) if window is None else window
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    # OpenCV takes coordinates for those of pixels' centres, Pillow for those of their edges.
    x, y = left + column - middle_x + 0.5, top + row - middle_y + 0.5
    matrix = np.array([
        [cosine, -sine, x * cosine - y * sine + width / 2 - 0.5],
        [sine, cosine, x * sine + y * cosine + height / 2 - 0.5],
    ])  # fmt: skip
    return _pixels(cv2.warpAffine(image, matrix, (w, h), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP))


def _rotated_box(height: int, width: int, degrees: float) -> tuple[int, int, int, int, tuple[float, float]]:
    """Left, top, right and bottom of the rectangle in the canvas that holds the whole rotated picture, its middle."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    xs = [x * cosine + y * sine for x in (-width / 2, width / 2) for y in (-height / 2, height / 2)]
    ys = [y * cosine - x * sine for x in (-width / 2, width / 2) for y in (-height / 2, height / 2)]
    middle_x, middle_y = (  # Pillow rounds the canvas's edges outwards
        (math.ceil(round(max(at) + half, 9)) - math.floor(round(min(at) + half, 9))) / 2
        for at, half in ((xs, width / 2), (ys, height / 2))
    )
    w, h = _inscribed(width, height, abs(sine), abs(cosine))
    left, top = int(middle_x - w / 2), int(middle_y - h / 2)
    right, bottom = max(left + 1, int(middle_x + w / 2)), max(top + 1, int(middle_y + h / 2))
    return left, top, right, bottom, (middle_x, middle_y)


def _inscribed(width: int, height: int, sine: float, cosine: float) -> tuple[float, float]:
    """Width and height of the largest upright rectangle within a rotated one."""
    long, short = max(width, height), min(width, height)
    if short <= 2 * sine * cosine * long or abs(sine - cosine) < 1e-10:
        half = short / 2
        return (half / sine, half / cosine) if width >= height else (half / cosine, half / sine)
    double = cosine * cosine - sine * sine
    return (width * cosine - height * sine) / double, (height * cosine - width * sine) / double


def overlay(ground: Pixels, top: Pixels, size: float, opacity: float, x: float, y: float) -> Pixels:
    """AugLy's overlay_image: ``top`` over ``ground``, cut at its right and bottom edge.

    ``size`` is the top's height as a share of the ground's, ``x`` and ``y`` its corner as shares of width and height.
    """
    height = max(1, int(ground.shape[0] * size))
    width = max(1, int(top.shape[1] * height / top.shape[0]))
    left, row = _corner(ground, x, y)
    w, h = min(width, ground.shape[1] - left), min(height, ground.shape[0] - row)
    if (w, h) == (width, height):
        resized = resize(top, h, w, "bicubic")
    else:  # Pillow resizes a part alone; the whole may be huge
        seen = 0, 0, top.shape[1] * w / width, top.shape[0] * h / height
        resized = np.asarray(Image.fromarray(top).resize((w, h), Image.Resampling.BICUBIC, seen))
    weight = int(255 * opacity) / 255
    result = ground.copy()
    window = result[row : row + h, left : left + w]
    window[:] = cv2.addWeighted(resized, weight, window, 1 - weight, 0)
    return result


def overlay_emoji(image: Pixels, sprite: NDArray[np.uint8], size: float, x: float, y: float) -> Pixels:
    """AugLy's overlay_emoji: a square (n, n, 4) RGBA sprite, placed as overlay() does, opaque.

    AugLy's sprites are palette files, which Pillow resizes by nearest pixels.
    """
    side = max(1, int(image.shape[0] * size))
    resized = np.asarray(Image.fromarray(sprite).resize((side, side), Image.Resampling.NEAREST))
    return _paste(image, resized[..., :3], resized[..., 3:].astype(np.uint16), *_corner(image, x, y))


def overlay_text(
    image: Pixels, lines: Sequence[str], font: Path, size: float, colour: tuple[int, int, int], x: float, y: float
) -> Pixels:
    """AugLy's overlay_text, once a line: ``size`` is a share of the smaller side, ``x`` and ``y`` of width and height.

    Each line is one size below the one before. Glyphs stand side by side (Pillow's basic layout), whether or not the
    machine has libfribidi, with which Pillow would shape them.
    """
    height, width = image.shape[:2]
    canvas = Image.fromarray(image)
    points = max(1, int(min(width, height) * size))
    face = _face(font, points)
    for number, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((x * width, (y + number * size) * height), line, fill=colour, font=face)
    return np.asarray(canvas)


@lru_cache(maxsize=256)
def _face(font: Path, points: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font, points, layout_engine=ImageFont.Layout.BASIC)


def adjust_brightness(image: Pixels, factor: float) -> Pixels:
    """Pillow's: every level times ``factor``."""
    return _towards(image, 0, factor)


def adjust_contrast(image: Pixels, factor: float) -> Pixels:
    """Pillow's: away from the mean luma by ``factor``."""
    return _towards(image, int(cv2.mean(_luma(image))[0] + 0.5), factor)


def adjust_saturation(image: Pixels, factor: float) -> Pixels:
    """Pillow's: away from the luma of each pixel by ``factor``."""
    # Pillow cuts where OpenCV rounds: hence nearly half a level less.
    return _pixels(cv2.addWeighted(image, factor, grayscale(image), 1 - factor, -0.499))


def adjust_hue(image: Pixels, turns: float) -> Pixels:
    """torchvision's: the hue moved by a share of the colour circle."""
    hsv = _pixels(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL))
    hsv[..., 0] += np.uint8(int(turns * 255) % 256)
    return _pixels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def pixelize(image: Pixels, ratio: float) -> Pixels:
    """AugLy's pixelization: resized to ``ratio`` of both sides and back; bicubic, so blurred more than in blocks."""
    height, width = image.shape[:2]
    small = resize(image, max(1, int(height * ratio)), max(1, int(width * ratio)), "bicubic")
    return resize(small, height, width, "bicubic")


def shuffle_pixels(image: Pixels, targets: NDArray[np.int64], sources: NDArray[np.int64]) -> Pixels:
    """AugLy's: the pixels at ``targets`` (by row-major index) come from ``sources``, the same indices reordered."""
    flat = image.reshape(-1, 3).copy()
    flat[targets] = flat[sources]
    return flat.reshape(image.shape)


def encode(image: Pixels, quality: int) -> Pixels:
    """As a JPEG of this quality shows it."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality))
    return _pixels(simplejpeg.decode_jpeg(data, "RGB"))


def grayscale(image: Pixels) -> Pixels:
    """Luma in all three channels."""
    return _pixels(cv2.cvtColor(_luma(image), cv2.COLOR_GRAY2RGB))


def blur(image: Pixels, radius: float) -> Pixels:
    """Pillow's Gaussian blur, which is three box blurs a direction; the radius is the standard deviation in pixels."""
    box = _box(radius)
    for kernel in (box[None], box[:, None]):
        for _ in range(3):
            image = _pixels(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE))
    return image


def _box(radius: float) -> NDArray[np.float32]:
    """Weights of a box as wide as a third of the blur's variance asks; of its outermost pixels it covers a part."""
    variance = radius**2 / 3
    whole = int((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return np.array([part, *[1.0] * (2 * whole + 1), part], np.float32) / (2 * whole + 1 + 2 * part)


def perspective(image: Pixels, corners: NDArray[np.int64]) -> Pixels:
    """torchvision's: the corner pixels move to ``corners`` (x, y), clockwise from the top left; black outside."""
    height, width = image.shape[:2]
    if min(height, width) == 1:  # its corners coincide
        return image
    start = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    # Pillow takes the coordinates for those of pixels' edges, OpenCV for those of their centres.
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(centre) @ cv2.getPerspectiveTransform(corners.astype(np.float32), start) @ centre
    moved = cv2.warpPerspective(  # twice as fast with four channels, conversion included
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), matrix, (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    inside = cv2.warpPerspective(
        np.ones((height, width), np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    return _pixels(cv2.cvtColor(cv2.bitwise_and(moved, moved, mask=inside), cv2.COLOR_RGBA2RGB))


def edge_enhance(image: Pixels, *, more: bool) -> Pixels:
    """Pillow's EDGE_ENHANCE or EDGE_ENHANCE_MORE: a 3x3 kernel; the outermost pixels stay."""
    result = image.copy()
    if min(image.shape[:2]) > 2:
        # Pillow rounds a half up, OpenCV to even: hence the delta.
        kernel = _EDGE_ENHANCE_MORE if more else _EDGE_ENHANCE
        result[1:-1, 1:-1] = cv2.filter2D(image, -1, kernel, delta=1e-3)[1:-1, 1:-1]
    return result


def erase(image: Pixels, top: int, left: int, noise: NDArray[np.float32]) -> Pixels:
    """torchvision's: ``noise`` (height, width, 3) instead of the pixels, in units of 255 levels, before normalising.

    Views are bytes, so what leaves 0-1 is cut off; the original keeps it.
    """
    height, width = noise.shape[:2]
    result = image.copy()
    result[top : top + height, left : left + width] = np.rint(noise * 255).clip(0, 255)
    return result


def _towards(image: Pixels, level: int, factor: float) -> Pixels:
    """Pillow's blend of one grey level and the picture: cut to whole levels, not rounded."""
    table = (level + np.float32(factor) * (_LEVELS - level)).clip(0, 255).astype(np.uint8)
    return _pixels(cv2.LUT(image, table))


def _corner(image: Pixels, x: float, y: float) -> tuple[int, int]:
    """Column and row at these shares of the width and height."""
    height, width = image.shape[:2]
    return min(width - 1, int(width * x)), min(height - 1, int(height * y))


def _paste(ground: Pixels, top: Pixels, mask: NDArray[np.uint16], left: int, row: int) -> Pixels:
    """Pillow's paste: ``mask`` (height, width, 1) is the top's weight of 255; cut at the right and bottom edge."""
    result = ground.copy()
    window = result[row : row + top.shape[0], left : left + top.shape[1]]
    height, width = window.shape[:2]
    mask = mask[:height, :width]
    mixed = top[:height, :width] * mask + window * (255 - mask) + np.uint16(128)
    window[:] = (mixed + (mixed >> 8)) >> 8
    return result


def _luma(image: Pixels) -> Pixels:
    return _pixels(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _pixels(array: object) -> Pixels:
    """What OpenCV returns, by its type."""
    return np.asarray(array, dtype=np.uint8)
