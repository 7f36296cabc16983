"""What a user would run instead: the recipe's views as a chain of AugLy and torchvision transforms of Pillow images."""

import random
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pylibmagic  # noqa: F401 - carries the libmagic that AugLy asks for
from PIL import Image, ImageFilter, ImageFont
from torch import Tensor
from torchvision import transforms

from isc_jobs.spec.settings import Views
from isc_jobs.vision import assets

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from augly import image as _augly

augly: Any = _augly  # it is only partly typed
_Image = Image.Image
ImageFont.core.HAVE_RAQM = False  # type: ignore[union-attr] # whose layout of some of AugLy's fonts fails, where libfribidi is installed


class PeerViews:
    """Moderate and hard view of the bytes of a picture: (2, 3, size, size), normalised."""

    def __init__(self, views: Views, size: int) -> None:
        """The chain with a training's probabilities; ``size`` in pixels."""
        resized = transforms.RandomResizedCrop(size, scale=(0.7, 1.0))
        self._normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
        self._moderate = transforms.Compose([resized, transforms.RandomHorizontalFlip(), self._normalise])
        self._rotate = augly.RandomRotation(p=views.probability)
        self._overlaid, self._cropped = resized, transforms.RandomResizedCrop(size, scale=(0.15, 1.0))
        self._edits = _edits(views)
        self._erase = transforms.RandomErasing(p=views.erase_probability, value="random")
        self._views = views

    def __call__(self, data: bytes, other: bytes) -> tuple[Tensor, Tensor]:
        """Both views; ``other`` is overlaid now and then."""
        image = Image.open(BytesIO(data)).convert("RGB")
        return self._moderate(image), self._hard(image, other)

    def _hard(self, image: _Image, other: bytes) -> Tensor:
        image = self._rotate(image).convert("RGB")
        if random.random() < self._views.overlay_probability:
            image = self._overlaid(self._overlay(image, Image.open(BytesIO(other)).convert("RGB")))
        else:
            image = self._cropped(image)
        for edit in random.sample(self._edits, len(self._edits)):
            image = edit(image).convert("RGB")  # AugLy's emoji leave an alpha channel, which stops what follows
        tensor: Tensor = self._erase(self._normalise(image))
        return tensor

    def _overlay(self, image: _Image, other: _Image) -> _Image:
        ground, top = (image, other) if random.random() < 0.5 else (other, image)
        size = random.uniform(self._views.overlay_size.low, self._views.overlay_size.high)
        x, y = random.uniform(0, 1 - size), random.uniform(0, 1 - size)
        opacity = random.uniform(self._views.overlay_min_opacity, 1)
        result: _Image = augly.overlay_image(
            ground, top, overlay_size=size, opacity=opacity, x_pos=x, y_pos=y
        ).convert("RGB")  # fmt: skip
        return result


def _edits(views: Views) -> list[Callable[[_Image], _Image]]:
    fixed, jitter = views.fixed_probability, views.jitter
    emoji = sorted((assets.fonts()[0].parents[1] / "twemojis/smileys").glob("*.png"))
    return [
        transforms.ColorJitter(jitter, jitter, jitter, 0.2),
        augly.RandomPixelization(p=fixed),
        augly.ShufflePixels(factor=0.1, p=fixed),
        _sometimes(views.encoding_probability, _encode),
        transforms.RandomGrayscale(p=fixed),
        augly.RandomBlur(max_radius=10.0, p=fixed),
        transforms.RandomPerspective(p=views.probability),
        transforms.RandomHorizontalFlip(0.5),
        transforms.RandomVerticalFlip(0.1),
        _sometimes(views.probability, _text),
        _sometimes(views.probability, lambda image: _emoji(image, str(random.choice(emoji)))),
        _sometimes(
            views.edge_probability,
            lambda image: image.filter(random.choice((ImageFilter.EDGE_ENHANCE, ImageFilter.EDGE_ENHANCE_MORE))),
        ),
    ]


def _sometimes(probability: float, edit: Callable[[_Image], _Image]) -> Callable[[_Image], _Image]:
    return lambda image: edit(image) if random.random() < probability else image


def _encode(image: _Image) -> _Image:
    result: _Image = augly.encoding_quality(image, quality=random.choice((10, 20, 30, 50)))
    return result


def _text(image: _Image) -> _Image:
    font, size = random.choice(assets.fonts()), random.uniform(0.1, 0.3)
    count = len(assets.characters(font))
    lines = [[random.randrange(count) for _ in range(random.randint(5, 9))] for _ in range(random.randint(1, 2))]
    result: _Image = augly.overlay_text(
        image, text=lines, font_file=str(font), font_size=size, color=tuple(np.random.randint(0, 256, 3).tolist()),  # noqa: NPY002
        x_pos=random.uniform(0, 0.5), y_pos=random.uniform(0, 0.5),
    )  # fmt: skip
    return result


def _emoji(image: _Image, path: str) -> _Image:
    result: _Image = augly.overlay_emoji(
        image, emoji_path=path, emoji_size=random.uniform(0.1, 0.3), x_pos=random.uniform(0, 1),
        y_pos=random.uniform(0, 1),
    )  # fmt: skip
    return result
