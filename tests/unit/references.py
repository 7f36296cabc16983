"""Each operation of the views beside the library's that it follows, with the same parameters and a bound.

Bounds are mean absolute differences in grey levels of 255. Nought stands where the arithmetic is the same.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pylibmagic  # noqa: F401 - carries the libmagic that AugLy asks for
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageFont
from torchvision.transforms import functional

from isc_jobs.vision import assets, operations
from isc_jobs.vision.decode import cut
from isc_jobs.vision.resize import resize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from augly import image as _augly_image

augly: Any = _augly_image  # it is only partly typed

Pixels = NDArray[np.uint8]
PHOTOS = Path(__file__).parents[2] / "examples/photos"
_SIZE = 160  # of the views that crops are resized to
_FOLDER = assets.fonts()[0].parents[1]
_SCRIPT, _ARABIC = _FOLDER / "fonts/Lobster_1.3.ttf", _FOLDER / "fonts/NotoNaskhArabic-Regular.ttf"
_EMOJI = sorted((_FOLDER / "twemojis/smileys").glob("*.png"))
_RED, _WHITE = (230, 30, 60), (255, 255, 255)
_HUE = "OpenCV's hue and saturation round otherwise"
_CUT = "Pillow cuts an interpolated level, OpenCV rounds it"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An operation with parameters, ours and theirs; ``why`` says where a difference comes from."""

    name: str
    ours: Callable[[Pixels], Pixels]
    theirs: Callable[[Image.Image], Image.Image]
    bound: float = 0.0
    why: str = ""

    def differences(self, image: Image.Image) -> tuple[Pixels, Pixels, NDArray[np.float64]]:
        """Ours, theirs, and the absolute difference of each level."""
        ours, theirs = self.ours(np.asarray(image)), np.asarray(self.theirs(image))
        return ours, theirs, np.abs(ours.astype(np.float64) - theirs)


def companion() -> Image.Image:
    """The photo that is overlaid, wider than high."""
    return Image.open(PHOTOS / "igloo.jpg").convert("RGB")


def _window(width: int, height: int) -> tuple[int, int, int, int]:
    return height // 5, width // 10, max(1, height * 7 // 10), max(1, width * 4 // 5)


def _crop() -> Comparison:
    return Comparison(
        name="crop and resize",
        ours=lambda image: resize(
            cut(image, _window(image.shape[1], image.shape[0]), image.shape[:2]), _SIZE, _SIZE, "bilinear"
        ),
        theirs=lambda image: functional.resized_crop(image, *_window(*image.size), [_SIZE, _SIZE]),
        bound=0.01, why="torch's kernels have 16 bits",
    )  # fmt: skip


def _rotate(degrees: float) -> Comparison:
    return Comparison(
        name=f"rotate {degrees}°",
        ours=lambda image: operations.rotate(image, degrees),
        theirs=lambda image: augly.rotate(image, degrees=degrees),
        bound=0.05, why="a pixel on the edge between two may fall to either",
    )  # fmt: skip


def _overlay(size: float, opacity: float, x: float, y: float) -> Comparison:
    return Comparison(
        name=f"overlay {size}, opacity {opacity}",
        ours=lambda image: operations.overlay(image, np.asarray(companion()), size, opacity, x, y),
        theirs=lambda image: augly.overlay_image(
            image, companion(), overlay_size=size, opacity=opacity, x_pos=x, y_pos=y
        ),
        bound=0.001, why="where it is cut, Pillow rounds the window's coordinates",
    )  # fmt: skip


def _adjust(name: str, amount: float, bound: float = 0.0, why: str = "") -> Comparison:
    ours, theirs = getattr(operations, f"adjust_{name}"), getattr(functional, f"adjust_{name}")
    return Comparison(
        name=f"{name} {amount}", bound=bound, why=why,
        ours=lambda image: ours(image, amount), theirs=lambda image: theirs(image, amount),
    )  # fmt: skip


def _pixelize(ratio: float) -> Comparison:
    return Comparison(
        name=f"pixelize {ratio}",
        ours=lambda image: operations.pixelize(image, ratio),
        theirs=lambda image: augly.pixelization(image, ratio=ratio),
        bound=0.03, why="torch's kernels have 16 bits",
    )  # fmt: skip


def _shuffle() -> Comparison:
    """AugLy seeds numpy with 10, chooses a tenth of the pixels, and shuffles them."""

    def ours(image: Pixels) -> Pixels:
        count = image.shape[0] * image.shape[1]
        state = np.random.RandomState(10)
        targets = state.choice(count, int(0.1 * count), replace=False)
        order = np.arange(len(targets))
        state.shuffle(order)
        return operations.shuffle_pixels(image, targets, targets[order])

    return Comparison(
        name="shuffle 10%", ours=ours, theirs=lambda image: augly.shuffle_pixels(image, factor=0.1, seed=10)
    )


def _encode(quality: int) -> Comparison:
    return Comparison(
        name=f"JPEG {quality}",
        ours=lambda image: operations.encode(image, quality),
        theirs=lambda image: augly.encoding_quality(image, quality=quality),
    )


def _blur(radius: float, bound: float) -> Comparison:
    return Comparison(
        name=f"blur {radius}", bound=bound, why="half a level may go either way",
        ours=lambda image: operations.blur(image, radius),
        theirs=lambda image: augly.blur(image, radius=radius),
    )  # fmt: skip


def _perspective() -> Comparison:
    def corners(width: int, height: int) -> list[list[int]]:
        right, low, x, y = width - 1, height - 1, width // 4, height // 4
        return [[x // 2, y], [right - x, y // 3], [right - x // 4, low - y // 2], [x, low - y // 5]]

    def theirs(image: Image.Image) -> Image.Image:
        right, low = image.width - 1, image.height - 1
        start = [[0, 0], [right, 0], [right, low], [0, low]]
        moved: Image.Image = functional.perspective(image, start, corners(*image.size))
        return moved

    return Comparison(
        name="perspective",
        ours=lambda image: operations.perspective(image, np.array(corners(image.shape[1], image.shape[0]))),
        theirs=theirs, bound=0.3, why=_CUT,
    )  # fmt: skip


def _text(font: Path, lines: list[list[int]], size: float, colour: tuple[int, int, int]) -> Comparison:
    """``lines`` are indices of the font's characters, as AugLy takes them."""
    x, y = 0.1, 0.2
    strings = ["".join(assets.characters(font)[index] for index in line) for line in lines]

    def theirs(image: Image.Image) -> Image.Image:
        with pytest.MonkeyPatch.context() as patch:  # as on a machine without libfribidi
            patch.setattr(ImageFont.core, "HAVE_RAQM", False)
            for number, line in enumerate(lines):
                image = augly.overlay_text(
                    image, text=line, font_file=str(font), font_size=size, color=list(colour), x_pos=x,
                    y_pos=y + number * size,
                )  # fmt: skip
        return image

    return Comparison(
        name=f"{'text' if len(lines) == 1 else 'two lines'} in {font.stem.split('-')[0].split('_')[0]}",
        ours=lambda image: operations.overlay_text(image, strings, font, size, colour, x, y),
        theirs=theirs,
    )


def _emoji(name: str, size: float, x: float, y: float) -> Comparison:
    index = next(number for number, path in enumerate(_EMOJI) if path.stem == name)
    return Comparison(
        name=f"emoji {size}",
        ours=lambda image: operations.overlay_emoji(image, assets.emoji()[index], size, x, y),
        theirs=lambda image: augly.overlay_emoji(
            image, emoji_path=str(_EMOJI[index]), emoji_size=size, x_pos=x, y_pos=y
        ),
    )


def _edge_enhance(*, more: bool) -> Comparison:
    kernel = ImageFilter.EDGE_ENHANCE_MORE if more else ImageFilter.EDGE_ENHANCE
    return Comparison(
        name="edge enhance more" if more else "edge enhance",
        ours=lambda image: operations.edge_enhance(image, more=more),
        theirs=lambda image: image.filter(kernel),
    )


def _erase() -> Comparison:
    def place(width: int, height: int) -> tuple[int, int, NDArray[np.float32]]:
        shape = max(1, height // 3), max(1, width // 2), 3
        return height // 4, width // 3, np.random.default_rng(0).standard_normal(shape, np.float32)

    def theirs(image: Image.Image) -> Image.Image:
        top, left, noise = place(*image.size)
        erased = functional.erase(
            functional.to_tensor(image), top, left, *noise.shape[:2], torch.from_numpy(noise).permute(2, 0, 1)
        )
        return Image.fromarray((erased.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())

    return Comparison(
        name="erase", ours=lambda image: operations.erase(image, *place(image.shape[1], image.shape[0])),
        theirs=theirs,
    )  # fmt: skip


COMPARISONS = (
    _crop(),
    _rotate(33.3), _rotate(121.7),
    _overlay(0.4, 0.7, 0.3, 0.2), _overlay(0.8, 0.4, 0.5, 0.15),
    _adjust("brightness", 0.4), _adjust("brightness", 1.7),
    _adjust("contrast", 0.3, 0.01, "OpenCV's luma"), _adjust("contrast", 1.8, 0.01, "OpenCV's luma"),
    _adjust("saturation", 0.2, 0.005, "OpenCV's luma"), _adjust("saturation", 1.8, 0.005, "OpenCV's luma"),
    _adjust("hue", -0.2, 0.4, _HUE), _adjust("hue", 0.13, 0.4, _HUE),
    _pixelize(0.15), _pixelize(0.7),
    _shuffle(),
    _encode(10), _encode(50),
    Comparison(
        name="grayscale", ours=operations.grayscale, bound=0.005, why="OpenCV's luma",
        theirs=lambda image: functional.rgb_to_grayscale(image, num_output_channels=3),
    ),
    _blur(0.7, 0.001), _blur(2.0, 0.1), _blur(3.5, 0.001), _blur(9.3, 0.001),
    _perspective(),
    Comparison(name="horizontal flip", ours=lambda image: operations.flip(image, 1), theirs=functional.hflip),
    Comparison(name="vertical flip", ours=lambda image: operations.flip(image, 0), theirs=functional.vflip),
    _text(_SCRIPT, [[34, 45, 50, 61, 70, 80]], 0.25, _WHITE),
    _text(_ARABIC, [[5, 90, 41, 33, 60], [70, 81, 92, 103, 114, 120, 3]], 0.2, _RED),
    _emoji("smiling_face_with_heart_eyes", 0.3, 0.2, 0.3), _emoji("ghost", 0.25, 0.85, 0.9),
    _edge_enhance(more=False), _edge_enhance(more=True),
    _erase(),
)  # fmt: skip
