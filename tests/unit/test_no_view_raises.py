"""No picture that can be decoded makes a view raise, at any strength of the three trainings and any size."""

from functools import partial

import numpy as np
import pytest
from odd_pictures import large_pictures, odd_pictures

from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Training
from isc_jobs.vision.decode import Encoded
from isc_jobs.vision.views import hard_view, moderate_view

TRAININGS: list[Training] = [getattr(load_settings("isc21").trainings, name) for name in ("v83", "v86", "v98")]
PARTS, VIEWS = 8, 100_000
# Most views are small, so that many can be made; one in fifty has its training's size.
SIZES = (1, 2, 3, 5, 31, 32, 48, 64, 96)


def views(seed: int, count: int) -> None:
    """Draw as many hard views of odd pictures over odd pictures, and some moderate ones."""
    rng = np.random.default_rng(seed)
    pictures = list(odd_pictures().items())
    for number in range(count):
        training = TRAININGS[int(rng.integers(3))]
        size = training.input_size if number % 50 == 0 else int(rng.choice(SIZES))
        (name, data), (under, other) = (pictures[int(rng.integers(len(pictures)))] for _ in range(2))
        state = rng.bit_generator.state
        try:
            check(data, other, size, training, rng, moderate=number % 10 == 0)
        except Exception as error:
            raise AssertionError(f"{name} over {under}, size {size}, generator {state}") from error


def check(
    data: bytes, other: bytes, size: int, training: Training, rng: np.random.Generator, *, moderate: bool
) -> None:
    assert training.views is not None
    image = Encoded(data)
    made = [hard_view(image, partial(Encoded, other), size, training.views, rng)]
    if moderate:
        made.append(moderate_view(image, size, rng))
    for view in made:
        assert view.shape == (size, size, 3)
        assert view.dtype == np.uint8
        assert view.flags["C_CONTIGUOUS"]


def test_hundreds_of_hard_views_of_odd_pictures() -> None:
    views(seed=1000, count=800)


def test_huge_and_very_long_pictures() -> None:
    """Each alone and over another, and under another."""
    training = TRAININGS[2]
    assert training.views is not None
    strong = training.views.model_copy(update={"probability": 1.0, "overlay_probability": 1.0})
    always = training.model_copy(update={"views": strong})
    rng = np.random.default_rng(0)
    thin = odd_pictures()["3000x2 PNG"]
    for data in large_pictures().values():
        check(data, thin, 64, always, rng, moderate=True)
        check(thin, data, training.input_size, always, rng, moderate=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_hundred_thousand_hard_views_of_odd_pictures(part: int) -> None:
    views(seed=part, count=VIEWS // PARTS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: f"{training.input_size}")
def test_hundreds_of_hard_views_of_large_pictures(training: Training) -> None:
    assert training.views is not None
    rng = np.random.default_rng(2000)
    for data in large_pictures().values():
        image = Encoded(data)
        for _ in range(30):
            view = hard_view(image, partial(Encoded, data), training.input_size, training.views, rng)
            assert view.shape == (training.input_size, training.input_size, 3)
