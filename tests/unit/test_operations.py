"""Every operation of the views gives the picture of the library that it follows."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from references import COMPARISONS, PHOTOS, Comparison

from isc_jobs.spec.errors import UsageError
from isc_jobs.vision import assets, operations

SIZES = ((384, 288), (97, 131), (512, 512))
NAMES = ("castle", "koala", "graffiti")


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.name)
def test_an_operation_gives_the_librarys_picture(comparison: Comparison) -> None:
    for name in NAMES:
        for size in SIZES:
            image = Image.open(PHOTOS / f"{name}.jpg").convert("RGB").resize(size)
            ours, theirs, difference = comparison.differences(image)
            assert ours.shape == theirs.shape
            assert difference.mean() <= comparison.bound, f"{name} {size}: {comparison.why}"


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.name)
def test_an_operation_changes_the_picture_and_not_its_input(comparison: Comparison) -> None:
    image = np.asarray(Image.open(PHOTOS / "koala.jpg").convert("RGB"))
    before = image.copy()
    after = comparison.ours(image)
    np.testing.assert_array_equal(image, before)
    assert after.shape != image.shape or np.any(after != image)
    assert after.dtype == np.uint8


def test_a_long_thin_picture_is_rotated_without_the_square_that_would_hold_it() -> None:
    line = np.zeros((3, 40_000, 3), np.uint8)
    assert operations.rotate(line, 45).size < 100
    assert operations.rotate(line, 0).shape == line.shape


def test_an_overlay_that_would_be_huge_is_computed_where_it_is_seen() -> None:
    line = np.full((3, 40_000, 3), 200, np.uint8)
    result = operations.overlay(np.zeros((300, 400, 3), np.uint8), line, 0.8, 1.0, 0.5, 0.1)
    assert (result[30:270, 200:] == 200).all()
    assert not result[:, :200].any()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3)])
def test_perspective_leaves_a_line_of_pixels_alone(shape: tuple[int, int, int]) -> None:
    image = np.full(shape, 77, np.uint8)
    right, low = shape[1] - 1, shape[0] - 1
    corners = np.array([[0, 0], [right - right // 4, 0], [right, low], [right // 4, low]])
    np.testing.assert_array_equal(operations.perspective(image, corners), image)


def test_no_pixel_is_made_or_lost_by_shuffling_and_only_those_named_move() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    sources = np.random.default_rng(1).choice(1200, 120, replace=False)
    after = operations.shuffle_pixels(image, np.sort(sources), sources)
    np.testing.assert_array_equal(np.sort(after.reshape(-1, 3), axis=0), np.sort(image.reshape(-1, 3), axis=0))
    others = np.setdiff1d(np.arange(1200), sources)
    np.testing.assert_array_equal(after.reshape(-1, 3)[others], image.reshape(-1, 3)[others])


def test_all_fonts_but_two_are_used_and_their_characters_are_auglys() -> None:
    import pickle

    names = {path.name for path in assets.fonts()}
    folder = assets.fonts()[0].parent
    listed = {line.rsplit("/", 1)[-1] for line in (folder / "list").read_text().split()}
    assert listed - names == {"TypeMyMusic_1.1.ttf", "PainttheSky-Regular.ttf"}
    assert names < listed
    for font in assets.fonts():
        codes = pickle.loads(font.with_suffix(".pkl").read_bytes())
        assert [ord(character) for character in assets.characters(font)] == codes


@pytest.mark.slow
def test_every_character_of_every_font_can_be_drawn() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    for font in assets.fonts():
        characters = assets.characters(font)
        for start in range(0, len(characters), 9):
            operations.overlay_text(image, [characters[start : start + 9]], font, 0.3, (255, 255, 255), 0, 0.2)


def test_emoji_are_auglys_smileys_in_colour_and_with_transparency() -> None:
    sprites = assets.emoji()
    assert len(sprites) == 92
    assert all(sprite.shape == (72, 72, 4) for sprite in sprites)
    assert all({0, 255} <= set(np.unique(sprite[..., 3])) for sprite in sprites)


def test_fonts_and_emoji_are_read_without_auglys_code() -> None:
    program = (
        "import sys; from isc_jobs.vision import assets; assets.emoji(); assets.characters(assets.fonts()[0]); "
        "sys.exit('augly' in sys.modules or 'magic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_machine_without_augly_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "find_spec", lambda _: None)
    for read in (assets.fonts, assets.emoji):
        read.cache_clear()
        with pytest.raises(UsageError, match=r"augly.*not installed.*isc-jobs\[cpu\]"):
            read()
