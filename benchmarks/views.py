"""A contact sheet of the training views: every operation beside its reference, and hard views of each strength.

Writes OUT (operations) and OUT with "-views" before its suffix (hard views).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Training
from isc_jobs.vision import assets
from isc_jobs.vision.decode import Encoded
from isc_jobs.vision.views import hard_view

sys.path.append(str(Path(__file__).parents[1] / "tests/unit"))
from references import COMPARISONS, PHOTOS, Comparison
from whole import Whole

TILE, GAP, MARGIN, GROUPS = (148, 111), 6, 36, 3
CAPTION, HEAD, GROUP_GAP = 30, 100, 26
SQUARE = 150
OTHERS = ("igloo", "dam2", "fish4", "windmill", "bucket")  # what is overlaid: in the public domain, as the moose is
AMPLIFIED, VIEWS = 32, 24
INK, FAINT, PAPER, FRAME = (28, 30, 34), (120, 124, 132), (255, 255, 255), (222, 224, 228)
Pixels = NDArray[np.uint8]


def main() -> None:
    """Write both sheets and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="PNG or JPEG")
    parser.add_argument("photo", type=Path, nargs="?", default=PHOTOS / "moose.jpg")
    arguments = parser.parse_args()
    with Image.open(arguments.photo) as opened:
        photo = ImageOps.exif_transpose(opened).convert("RGB")
    photo.thumbnail((1024, 1024))
    operations_sheet(photo).save(arguments.out, quality=92)
    views_sheet(photo).save(arguments.out.with_stem(arguments.out.stem + "-views"), quality=92)


def operations_sheet(photo: Image.Image) -> Image.Image:
    """Of each comparison: original, ours, reference, their difference and its mean."""
    width = 4 * TILE[0] + 3 * GAP
    rows = -(-len(COMPARISONS) // GROUPS)
    sheet = _page(2 * MARGIN + GROUPS * width + (GROUPS - 1) * GROUP_GAP, HEAD + rows * (TILE[1] + CAPTION) + MARGIN)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 22), "Operations of the hard view", INK, _font(26, "SemiBold"))
    for group in range(GROUPS):
        for column, label in enumerate(("original", "ours", "reference", f"{AMPLIFIED} times the difference")):
            place = MARGIN + group * (width + GROUP_GAP) + column * (TILE[0] + GAP), HEAD - 22
            draw.text(place, label, FAINT, _font(13))
    for number, comparison in enumerate(COMPARISONS):
        group, row = divmod(number, rows)
        left, top = MARGIN + group * (width + GROUP_GAP), HEAD + row * (TILE[1] + CAPTION)
        _compare(sheet, photo, comparison, left, top)
    return sheet


def _compare(sheet: Image.Image, photo: Image.Image, comparison: Comparison, left: int, top: int) -> None:
    ours, theirs, difference = comparison.differences(photo)
    amplified = (255 - AMPLIFIED * difference).clip(0, 255).astype(np.uint8)
    for column, picture in enumerate((np.asarray(photo), ours, theirs, amplified)):
        _tile(sheet, picture, TILE, left + column * (TILE[0] + GAP), top)
    mean = f"mean difference {difference.mean():.3f} of 255" if difference.any() else "equal"
    draw, base = ImageDraw.Draw(sheet), top + TILE[1] + 3
    draw.text((left, base), comparison.name, INK, _font(13, "SemiBold"))
    draw.text((left + 4 * TILE[0] + 3 * GAP, base), mean, FAINT, _font(13), anchor="ra")
    print(f"{comparison.name:<30}{difference.mean():.4f} (bound {comparison.bound})  {comparison.why}")


def views_sheet(photo: Image.Image) -> Image.Image:
    """Twenty-four hard views of each strength, each with another seed, at the training's size."""
    columns = VIEWS // 2
    block = 2 * (SQUARE + GAP) + 44
    sheet = _page(2 * MARGIN + columns * (SQUARE + GAP) - GAP, HEAD + 3 * block)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 22), "Hard views of one photo", INK, _font(26, "SemiBold"))
    trainings = load_settings("isc21").trainings
    for part, name in enumerate(("v83", "v86", "v98")):
        training: Training = getattr(trainings, name)
        top = HEAD + part * block
        draw.text((MARGIN, top - 28), f"{name}, {training.input_size} pixels", INK, _font(16, "SemiBold"))
        for number in range(VIEWS):
            row, column = divmod(number, columns)
            view = _view(photo, training, VIEWS * part + number)
            _tile(sheet, view, (SQUARE, SQUARE), MARGIN + column * (SQUARE + GAP), top + row * (SQUARE + GAP))
    return sheet


def _view(photo: Image.Image, training: Training, seed: int) -> Pixels:
    rng = np.random.default_rng(seed)
    other = PHOTOS / f"{OTHERS[int(rng.integers(len(OTHERS)))]}.jpg"
    assert training.views is not None
    return hard_view(
        Whole(np.asarray(photo)),
        lambda: Encoded(other.read_bytes()),
        training.input_size,
        training.views,
        rng,
    )


def _page(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), PAPER)


def _tile(sheet: Image.Image, pixels: Pixels, size: tuple[int, int], left: int, top: int) -> None:
    """The picture, whole, in the middle of a framed tile."""
    picture = ImageOps.contain(Image.fromarray(pixels), size, Image.Resampling.LANCZOS)
    at = left + (size[0] - picture.width) // 2, top + (size[1] - picture.height) // 2
    sheet.paste(picture, at)
    box = at[0] - 1, at[1] - 1, at[0] + picture.width, at[1] + picture.height
    ImageDraw.Draw(sheet).rectangle(box, outline=FRAME)


def _font(size: int, weight: str = "Regular") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(assets.fonts()[0].parent / f"IBMPlexSans-{weight}.ttf", size)


if __name__ == "__main__":
    main()
