"""A moderate and a hard view of 1024-pixel JPEGs on one core, beside AugLy's and torchvision's chain."""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import torch
from peers import PeerViews
from PIL import Image

from isc_jobs.spec.profile import load_settings
from isc_jobs.vision import assets
from isc_jobs.vision.decode import Encoded
from isc_jobs.vision.views import hard_view, moderate_view


def main() -> None:
    """Print a row a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=Path("examples/photos"))
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 384, 512])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    for font in assets.fonts():  # what is read once in a training is read before
        assets.characters(font)
    pictures = [as_jpeg(path) for path in sorted(arguments.photos.glob("*.jpg"))[: arguments.pictures]]
    print("| views, one core, at | ours, ms a pair | AugLy + torchvision, ms | ratio | decoding, ms |")
    print("|---|---|---|---|---|")
    for size in arguments.sizes:
        ours, theirs, decode = compare(pictures, size, arguments.rounds)
        print(f"| {size} px | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} | {decode:.2f} |", flush=True)


def as_jpeg(path: Path) -> bytes:
    """The picture with 1024 pixels on its longer side, as a JPEG of quality 90."""
    image = Image.open(path).convert("RGB")
    scale = 1024 / max(image.size)
    data = BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC).save(
        data, "JPEG", quality=90
    )
    return data.getvalue()


def compare(pictures: list[bytes], size: int, rounds: int) -> tuple[float, float, float]:
    """Milliseconds of CPU a pair: ours, the peer's, and ours for decoding alone; medians of interleaved rounds."""
    views = load_settings("isc21").trainings.v98.views
    assert views is not None
    peer, rng = PeerViews(views, size), np.random.default_rng(1)

    def ours(data: bytes, other: bytes) -> None:
        picture = Encoded(data)
        hard_view(picture, lambda: Encoded(other), size, views, rng)
        moderate_view(picture, size, rng)

    random.seed(1)
    measured = [
        [timed(work, pictures) for work in (ours, peer, lambda data, _: Encoded(data).pixels())] for _ in range(rounds)
    ]
    first, second, third = (statistics.median(column) for column in zip(*measured, strict=True))
    return first, second, third


def timed(work: Callable[[bytes, bytes], object], pictures: list[bytes]) -> float:
    """Milliseconds of CPU a picture."""
    began = time.process_time()
    for place, data in enumerate(pictures):
        work(data, pictures[place - 1])
    return 1000 * (time.process_time() - began) / len(pictures)


if __name__ == "__main__":
    main()
