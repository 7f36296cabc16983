"""Decoding takes odd pictures; views never raise and repeat by seed."""

import io
from functools import partial

import numpy as np
import pytest
from PIL import Image
from whole import Whole

from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Range
from isc_jobs.vision.decode import BadImage, decode_rgb
from isc_jobs.vision.resize import load_resized
from isc_jobs.vision.views import hard_view, moderate_view

VIEWS = load_settings("isc21").trainings.v98.views


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = (
        Image.new("I;16", (9, 5), 40000) if mode == "I;16" else Image.new("RGB", (9, 5), (200, 10, 10)).convert(mode)
    )
    decoded = decode_rgb(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert (decoded.mode, decoded.size) == ("RGB", (9, 5))


def test_exif_rotation_is_applied_and_the_first_frame_is_taken() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_rgb(encoded(Image.new("RGB", (9, 5)), "JPEG", exif=exif)).size == (5, 9)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    first = decode_rgb(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert first.getpixel((0, 0)) == (255, 0, 0)


def test_sixteen_bits_are_scaled_not_cut() -> None:
    assert decode_rgb(encoded(Image.new("I;16", (2, 2), 32896))).getpixel((0, 0)) == (128, 128, 128)


def test_what_cannot_be_used_is_refused_with_its_reason() -> None:
    whole = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    for data, reason in ((b"", "empty file"), (b"text", "no known image format"), (whole[:500], "cannot be decoded")):
        with pytest.raises(BadImage, match=reason):
            decode_rgb(data)
    with pytest.raises(BadImage, match="64x64 is more than 100 pixels"):
        decode_rgb(whole, 100)


def test_the_resized_picture_ignores_aspect() -> None:
    assert load_resized(encoded(Image.new("RGB", (300, 20)), "JPEG"), 32).shape == (32, 32, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (3, 5), (120, 90)])
def test_views_take_any_size_never_raise_and_repeat(shape: tuple[int, int]) -> None:
    assert VIEWS is not None
    source = np.random.default_rng(0)
    for seed in range(200):
        image = source.integers(0, 256, (*shape, 3), dtype=np.uint8)
        other = source.integers(0, 256, (int(source.integers(1, 80)), int(source.integers(1, 80)), 3), dtype=np.uint8)
        view = hard_view(Whole(image), partial(Whole, other), 48, VIEWS, np.random.default_rng(seed))
        assert view.shape == (48, 48, 3)
        assert view.dtype == np.uint8
        np.testing.assert_array_equal(
            view, hard_view(Whole(image), partial(Whole, other), 48, VIEWS, np.random.default_rng(seed))
        )
        assert moderate_view(Whole(image), 48, np.random.default_rng(seed)).shape == (48, 48, 3)


def test_an_overlay_larger_than_its_ground_is_cut_to_it() -> None:
    assert VIEWS is not None
    large = VIEWS.model_copy(update={"overlay_probability": 1.0, "overlay_size": Range(low=1.0, high=3.0)})
    image = np.zeros((20, 30, 3), np.uint8)
    for seed in range(50):
        assert hard_view(Whole(image), partial(Whole, image), 32, large, np.random.default_rng(seed)).shape == (
            32,
            32,
            3,
        )
