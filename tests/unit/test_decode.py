"""Decoding: damaged bytes of every format are bad pictures, never another error; reducing keeps the picture."""

import contextlib
import io
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from isc_jobs.vision.decode import BadImage, Encoded, check_picture, cut, decode_rgb
from isc_jobs.vision.resize import load_resized


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def photo(width: int, height: int) -> Image.Image:
    """Smooth, as photos are: reducing and resizing differ little."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = np.stack([np.sin(9 * x + 2 * y), np.cos(7 * y - x), np.sin(5 * x * y)], axis=2)
    return Image.fromarray((127.5 + 120 * waves).astype(np.uint8))


def damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    reach = min(len(changed), rng.choice([64, 200, len(changed)]))
    for _ in range(rng.choice([1, 2, 5, 20])):
        changed[rng.randrange(reach)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    return bytes(changed[: rng.randrange(1, len(changed))] if rng.random() < 0.2 else changed)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "DDS", "ICO"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # pytest sets filters of its own
def test_damaged_bytes_are_a_bad_picture_and_never_another_error(kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in {"JPEG", "PNG", "WEBP", "TIFF"} else {}
    data = encoded(photo(40, 30), kind, **options)
    rng = random.Random(kind)
    for _ in range(300):
        with contextlib.suppress(BadImage):
            assert decode_rgb(damaged(data, rng), 1_000_000).mode == "RGB"


def cut_or_spliced(data: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(data)), rng.randrange(1, 300)
    rest = data[at + length :] if rng.random() < 0.5 else rng.randbytes(length) + data[at:]
    return data[:at] + rest


def verdict(of: Callable[[bytes, int], tuple[int, int] | Image.Image], data: bytes) -> tuple[int, int] | str:
    try:
        found = of(data, 1_000_000)
    except BadImage as bad:
        return str(bad)
    return found.size if isinstance(found, Image.Image) else found


@pytest.mark.parametrize(
    "options",
    [
        {}, {"progressive": True}, {"subsampling": 0, "optimize": True}, {"restart_marker_blocks": 3},
        {"mode": "L"}, {"mode": "CMYK"}, {"kind": "PNG"}, {"kind": "WEBP"}, {"kind": "TIFF"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as above
def test_a_check_says_of_whole_and_damaged_bytes_what_a_decoding_says(options: dict[str, Any]) -> None:
    exif = Image.Exif()
    rng = random.Random(str(options))
    given = {"kind": "JPEG", "mode": "RGB"} | options
    mode, kind = given.pop("mode"), given.pop("kind")
    verdicts = set()
    for turn in range(1, 9):
        exif[0x0112] = turn
        whole = encoded(photo(33 + turn, 98 - turn).convert(mode), kind, exif=exif, **given)
        assert verdict(check_picture, whole) == verdict(decode_rgb, whole)
        for _ in range(60):
            data = (damaged if rng.random() < 0.5 else cut_or_spliced)(whole, rng)
            assert verdict(check_picture, data) == verdict(decode_rgb, data)
            verdicts.add(type(verdict(decode_rgb, data)))
    assert verdicts == {tuple, str}  # some damage is none that a decoder sees


def test_what_starts_other_programs_is_not_opened() -> None:
    with pytest.raises(BadImage, match="format EPS is none of"):
        decode_rgb(encoded(photo(8, 8), "EPS"))


def test_the_content_decides_not_a_name_and_size_is_checked_before_pixels() -> None:
    header = bytearray(encoded(photo(8, 8), "BMP"))
    header[18:26] = (60_000).to_bytes(4, "little") * 2  # 10 GB of pixels, were they decoded
    with pytest.raises(BadImage, match="60000x60000 is more than 100000000 pixels"):
        decode_rgb(bytes(header))


def test_transparency_is_dropped_and_the_colour_beneath_stays() -> None:
    rgba = Image.new("RGBA", (3, 3), (10, 200, 30, 0))
    assert decode_rgb(encoded(rgba, "PNG")).getpixel((1, 1)) == (10, 200, 30)
    palette = Image.new("P", (3, 3), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert decode_rgb(encoded(palette, "PNG", transparency=1)).getpixel((1, 1)) == (9, 8, 7)


@pytest.mark.parametrize("shape", [(1000, 700), (64, 64), (2000, 40), (33, 900)])
def test_a_reduced_jpeg_gives_the_picture_that_a_whole_one_gives(shape: tuple[int, int]) -> None:
    data = encoded(photo(*shape), "JPEG", quality=95)
    whole = decode_rgb(data).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(load_resized(data, 32).astype(int) - np.asarray(whole).astype(int)).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_has_pillows_pixels_whichever_way_up(orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(61, 40).convert(mode), "JPEG", exif=exif)
    for reduction in (1, 2, 4, 8):
        with Image.open(io.BytesIO(data)) as image:
            image.draft(None, (61 // reduction, 40 // reduction))
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        picture = Encoded(data)
        np.testing.assert_array_equal(picture.pixels(reduction), expected)
        if reduction == 1:
            assert (picture.height, picture.width) == expected.shape[:2]


def test_a_scale_that_a_finer_one_serves_is_not_decoded_again() -> None:
    picture = Encoded(encoded(photo(64, 48), "JPEG"))
    assert picture.pixels(4).shape == (12, 16, 3)
    whole = picture.pixels(1)
    assert whole.shape == (48, 64, 3)
    assert picture.pixels(2) is whole


def test_a_window_is_cut_in_proportion() -> None:
    pixels = np.arange(12 * 16 * 3, dtype=np.uint16).astype(np.uint8).reshape(12, 16, 3)
    np.testing.assert_array_equal(cut(pixels, (4, 8, 20, 16), (48, 64)), pixels[1:6, 2:6])
    assert cut(pixels, (47, 63, 1, 1), (48, 64)).shape == (1, 1, 3)


def test_a_reduced_jpeg_stays_at_least_twice_the_size() -> None:
    data = encoded(photo(1000, 700), "JPEG")
    assert all(64 <= side < 1000 for side in decode_rgb(data, reduce_to=32).size)
    assert decode_rgb(data, reduce_to=700).size == (1000, 700)


@pytest.mark.filterwarnings("error")
def test_threads_decode_alike() -> None:
    pictures = [encoded(photo(40 + n, 30), kind) for n in range(20) for kind in ("JPEG", "PNG", "WEBP")]
    with ThreadPoolExecutor(8) as pool:
        for data, image in zip(pictures, pool.map(decode_rgb, pictures), strict=True):
            assert image.tobytes() == decode_rgb(data).tobytes()
