"""Sources compute what a view shows, and what they show is the whole picture's, at whichever scale it was decoded."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from whole import Whole

from isc_jobs.vision import operations
from isc_jobs.vision.decode import Encoded, Pixels
from isc_jobs.vision.resize import resize
from isc_jobs.vision.sources import Overlaid, Rotated, Source, everything, resized_crop

PHOTOS = Path(__file__).parents[2] / "examples/photos"
NAMES = ("castle", "moose", "igloo", "windmill")


def photo(name: str) -> Pixels:
    """Of 1024 pixels, as the challenge's are."""
    return np.array(Image.open(PHOTOS / f"{name}.jpg").convert("RGB").resize((1024, 768), Image.Resampling.BICUBIC))


def jpeg(pixels: Pixels) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=90)
    return data.getvalue()


def test_a_window_of_a_rotated_picture_is_that_of_the_whole_one_rotated() -> None:
    image = photo("castle")
    for degrees in (0.0, 12.3, 90.0, 121.7, 180.0):
        turned = Rotated(Whole(image), degrees)
        whole = operations.rotate(image, degrees)
        assert (turned.height, turned.width) == whole.shape[:2]
        np.testing.assert_array_equal(everything(turned), whole)
        # OpenCV's coordinates are 1024ths of a pixel: now and then another pixel is the nearest.
        assert np.mean(turned.crop((30, 50, 200, 310)) != whole[30:230, 50:360]) < 0.001


def test_a_window_of_an_overlaid_picture_is_that_of_the_whole_one() -> None:
    ground, top = photo("castle"), photo("moose")
    both = Overlaid(Whole(ground), Whole(top), 0.5, 0.7, 0.2, 0.3)
    expected = operations.overlay(ground, top, 0.5, 0.7, 0.2, 0.3)
    np.testing.assert_array_equal(both.crop((100, 200, 300, 400)), expected[100:400, 200:600])


@pytest.mark.parametrize("kind", ["plain", "rotated", "overlaid"])
def test_what_is_decoded_at_half_scale_looks_like_what_is_decoded_whole(kind: str) -> None:
    """By two or three grey levels on average; a JPEG of quality 90 alone costs two."""

    def source(picture: Source, over: Source) -> Source:
        if kind == "rotated":
            return Rotated(picture, 33.0)
        return Overlaid(picture, over, 0.5, 0.8, 0.2, 0.3) if kind == "overlaid" else picture

    differences: dict[str, list[float]] = {"decoded": [], "averaged": []}
    for name in NAMES:
        data, other = jpeg(photo(name)), jpeg(photo("moose"))
        reduced = source(Encoded(data), Encoded(other))
        whole = source(Whole(Encoded(data).pixels()), Whole(Encoded(other).pixels()))
        height, width = whole.height, whole.width
        for part in (1.0, 0.9, 0.8):
            window = int(height * (1 - part)), 0, int(height * part), int(width * part)
            size = min(window[2:]) * 3 // 7
            expected = resize(whole.crop(window), size, size, "bilinear").astype(int)
            for way, picture in (("decoded", reduced), ("averaged", whole)):
                view = resized_crop(picture, window, size)
                assert not np.array_equal(view, expected)  # else it was not reduced
                differences[way].append(float(np.abs(view - expected).mean()))
    assert np.mean(differences["decoded"]) < (3 if kind == "rotated" else 2)
    assert np.mean(differences["averaged"]) < 2


def test_a_small_window_is_taken_from_the_picture_at_full_scale() -> None:
    data = jpeg(photo("castle"))
    window = (100, 200, 300, 400)
    expected = resized_crop(Whole(Encoded(data).pixels()), window, 256)
    np.testing.assert_array_equal(resized_crop(Encoded(data), window, 256), expected)
