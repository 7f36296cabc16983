"""What the views really hand to the operations has the distributions that the recipe states.

The operations are recorded and run. All seeds are fixed; a test refuses what has a chance below one in a thousand.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torchvision import transforms
from view_record import Record
from whole import Whole

from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Views
from isc_jobs.vision import assets, views

CHANCE = 1e-3
TRAININGS = {name: getattr(load_settings("isc21").trainings, name).views for name in ("v83", "v86", "v98")}
V98: Views = TRAININGS["v98"]
ALWAYS = V98.model_copy(
    update=dict.fromkeys(
        ("probability", "encoding_probability", "edge_probability", "fixed_probability", "erase_probability"), 1.0
    )
    | {"overlay_probability": 0.5}
)
NOTHING = V98.model_copy(update=dict.fromkeys(type(V98).model_fields, 0.0) | {"overlay_size": V98.overlay_size})
HEIGHT, WIDTH, SIZE = 150, 200, 48
IMAGE, OTHER = (np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for seed in (0, 1))


def recorded(settings: Views, count: int, seed: int, size: int = SIZE) -> Record:
    with pytest.MonkeyPatch.context() as patch:
        record = Record(patch)
        rng = np.random.default_rng(seed)
        for _ in range(count):
            record.views.append([])
            views.hard_view(Whole(IMAGE), lambda: Whole(OTHER), size, settings, rng)
    return record


@pytest.fixture(scope="module")
def always() -> Record:
    """Two thousand views with every operation."""
    return recorded(ALWAYS, 2000, 2)


def uniform(values: ArrayLike, low: float, high: float) -> None:
    drawn = np.asarray(values)
    assert len(drawn) > 500
    edge = 8 / len(drawn) * (high - low)  # empty once in e^8 = 3000 times
    assert low <= drawn.min() < low + edge
    assert high - edge < drawn.max() <= high
    assert stats.kstest(drawn, "uniform", (low, high - low)).pvalue > CHANCE


def even(values: Sequence[Any], choices: Sequence[Any]) -> None:
    """Each choice is as likely as another."""
    counts = Counter(values)
    assert set(counts) <= set(choices)
    assert stats.chisquare([counts[choice] for choice in choices]).pvalue > CHANCE


def chance(hits: int, count: int, probability: float) -> None:
    assert stats.binomtest(hits, count, probability).pvalue > CHANCE


def alike(ours: ArrayLike, theirs: ArrayLike) -> None:
    """Two-sample test of each parameter."""
    for mine, other in zip(np.asarray(ours).T, np.asarray(theirs).T, strict=True):
        assert stats.ks_2samp(mine, other).pvalue > CHANCE


@pytest.fixture(autouse=True)
def _torch_seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_rotation_is_of_any_angle_up_to_half_a_turn(always: Record) -> None:
    uniform(always.of("rotate", "degrees"), 0, 180)


def test_an_overlay_is_either_way_round_and_fits(always: Record) -> None:
    sizes = np.array(always.of("overlay", "size"))
    uniform(sizes, 0.2, 0.8)
    uniform(always.of("overlay", "opacity"), 0.4, 1.0)
    uniform(np.array(always.of("overlay", "x")) / (1 - sizes), 0, 1)
    uniform(np.array(always.of("overlay", "y")) / (1 - sizes), 0, 1)
    tops = always.of("overlay", "top")
    chance(sum(np.shares_memory(top, OTHER) for top in tops), len(tops), 0.5)


@pytest.mark.parametrize(("overlay", "low"), [(0.0, 0.15), (1.0, 0.7)])
def test_the_hard_crop_is_torchvisions_and_larger_after_an_overlay(overlay: float, low: float) -> None:
    record = recorded(NOTHING.model_copy(update={"overlay_probability": overlay}), 3000, 3)
    windows = record.of("crop", "window")
    alike(_crop_parameters(windows), _crop_parameters(_torchvision_windows(low, 3000)))
    assert min(height * width for _, _, height, width in windows) > 0.98 * low * HEIGHT * WIDTH


def test_the_moderate_crop_is_torchvisions_and_flipped_half_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(monkeypatch)
    rng = np.random.default_rng(4)
    for _ in range(3000):
        record.views.append([])
        views.moderate_view(Whole(IMAGE), SIZE, rng)
    windows = record.of("crop", "window")
    alike(_crop_parameters(windows), _crop_parameters(_torchvision_windows(0.7, 3000)))
    chance(len(record.of("flip", "axis")), 3000, 0.5)
    assert set(record.of("flip", "axis")) == {1}


def _torchvision_windows(low: float, count: int) -> list[tuple[int, int, int, int]]:
    image = torch.empty(3, HEIGHT, WIDTH)
    return [transforms.RandomResizedCrop.get_params(image, [low, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]


def _crop_parameters(windows: Sequence[tuple[int, int, int, int]]) -> list[tuple[float, ...]]:
    return [(top, left, height * width, width / height) for top, left, height, width in windows]


@pytest.mark.parametrize(("height", "width"), [(10, 4000), (4000, 10), (1, 50)])
def test_the_last_resort_of_a_crop_is_torchvisions(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(monkeypatch)
    record.views.append([])
    views.moderate_view(Whole(np.zeros((height, width, 3), np.uint8)), SIZE, np.random.default_rng(0))
    theirs = transforms.RandomResizedCrop.get_params(torch.empty(3, height, width), [0.7, 1.0], [3 / 4, 4 / 3])
    assert record.of("crop", "window") == [theirs]


def test_jitter_is_torchvisions(always: Record) -> None:
    names = ("brightness", "contrast", "saturation", "hue")
    argument = dict.fromkeys(names, "factor") | {"hue": "turns"}
    ours = np.transpose([always.of(f"adjust_{name}", argument[name]) for name in names])
    uniform(ours[:, :3].ravel(), 0.2, 1.8)
    uniform(ours[:, 3], -0.2, 0.2)
    jitter = transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)
    drawn = [jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in ours]
    alike(ours, [parameters[1:] for parameters in drawn])
    orders = [
        tuple(name.removeprefix("adjust_") for name, _ in calls if name.startswith("adjust_")) for calls in always.views
    ]
    assert stats.chisquare(list(Counter(orders).values())).pvalue > CHANCE
    assert len(set(orders)) == math.factorial(4)


def test_jitter_does_not_go_below_nought() -> None:
    record = recorded(ALWAYS.model_copy(update={"jitter": 1.0}), 600, 5)
    uniform(record.of("adjust_contrast", "factor"), 0, 2)


def test_pixels_blur_quality_and_edges_have_auglys_ranges(always: Record) -> None:
    uniform(always.of("pixelize", "ratio"), 0.1, 1.0)
    uniform(always.of("blur", "radius"), 0, 10)
    even(always.of("encode", "quality"), (10, 20, 30, 50))
    even(always.of("edge_enhance", "more"), (False, True))


def test_a_tenth_of_the_pixels_is_shuffled_and_anew_each_time(always: Record) -> None:
    targets, sources = (np.array(always.of("shuffle_pixels", name)) for name in ("targets", "sources"))
    count = SIZE * SIZE
    assert targets.shape[1] == count // 10
    np.testing.assert_array_equal(targets, np.sort(sources, axis=1))
    assert (np.diff(targets, axis=1) > 0).all()  # all different
    assert stats.chisquare(np.bincount(targets.ravel(), minlength=count)).pvalue > CHANCE
    # A random permutation has one fixed point on average, with variance one.
    assert abs((targets == sources).sum(axis=1).mean() - 1) < 4 / math.sqrt(len(targets))


def test_perspective_is_torchvisions(always: Record) -> None:
    ours = [np.asarray(corners).ravel() for corners in always.of("perspective", "corners")]
    theirs = [np.ravel(transforms.RandomPerspective.get_params(SIZE, SIZE, 0.5)[1]) for _ in ours]
    alike(ours, theirs)
    np.testing.assert_array_equal(np.min(ours, axis=0), np.min(theirs, axis=0))
    np.testing.assert_array_equal(np.max(ours, axis=0), np.max(theirs, axis=0))


def test_text_has_any_font_colour_and_characters(always: Record) -> None:
    fonts, texts = always.of("overlay_text", "font"), always.of("overlay_text", "lines")
    even(fonts, assets.fonts())
    uniform(always.of("overlay_text", "size"), 0.1, 0.3)
    uniform(always.of("overlay_text", "x"), 0, 0.5)
    uniform(always.of("overlay_text", "y"), 0, 0.5)
    even(np.ravel(always.of("overlay_text", "colour")).tolist(), range(256))
    even([len(lines) for lines in texts], (1, 2))
    even([len(line) for lines in texts for line in lines], (5, 6, 7, 8, 9))
    within = np.random.default_rng(0)
    ranks = [
        (assets.characters(font).index(character) + within.random()) / len(assets.characters(font))
        for font, lines in zip(fonts, texts, strict=True) for line in lines for character in line
    ]  # fmt: skip
    uniform(ranks, 0, 1)


def test_emoji_are_any_smiley_anywhere(always: Record) -> None:
    numbers = {id(sprite): number for number, sprite in enumerate(assets.emoji())}
    even([numbers[id(sprite)] for sprite in always.of("overlay_emoji", "sprite")], range(92))
    uniform(always.of("overlay_emoji", "size"), 0.1, 0.3)
    uniform(always.of("overlay_emoji", "x"), 0, 1)
    uniform(always.of("overlay_emoji", "y"), 0, 1)


def test_erasing_is_torchvisions() -> None:
    record = recorded(NOTHING.model_copy(update={"erase_probability": 1.0}), 10_000, 7, size=64)
    noises = record.of("erase", "noise")
    places = zip(record.of("erase", "top"), record.of("erase", "left"), noises, strict=True)
    ours = [(top, left, noise.shape[0], noise.shape[1]) for top, left, noise in places]
    image = torch.empty(3, 64, 64)
    theirs = [transforms.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in noises]
    alike(_crop_parameters(ours), _crop_parameters(theirs))
    assert stats.kstest(np.concatenate([noise.ravel()[:10] for noise in noises]), "norm").pvalue > CHANCE


def test_the_order_of_the_edits_is_random(always: Record) -> None:
    edits = ("adjust", "pixelize", "shuffle_pixels", "encode", "grayscale", "blur", "perspective", "overlay_text",
             "overlay_emoji", "edge_enhance")  # fmt: skip
    counts = np.zeros((len(edits), len(edits)))
    for calls in always.views:
        order = list(dict.fromkeys("adjust" if name.startswith("adjust") else name for name, _ in calls))
        for place, name in enumerate(name for name in order if name in edits):
            counts[edits.index(name), place] += 1
    assert counts.sum() == len(always.views) * len(edits)
    # The sum over random permutations is that of a table with fixed margins, k / (k - 1) times.
    free = len(edits) - 1
    assert stats.chi2.sf(stats.chisquare(counts.ravel()).statistic * free / (free + 1), free**2) > CHANCE


def test_rotation_overlay_and_crop_come_first_and_erasing_last(always: Record) -> None:
    for calls in always.views:
        names = [name for name, _ in calls]
        assert names[: names.index("crop") + 1] in (
            ["rotate", "crop"],
            ["rotate", "overlay", "crop"],
        )
        assert names[-1] == "erase"


@pytest.mark.parametrize("training", TRAININGS)
def test_every_operation_has_its_probability(training: str) -> None:
    settings: Views = TRAININGS[training]
    count = 2500
    record = recorded(settings, count, 6, size=32)
    expected = {
        "rotate": settings.probability, "overlay": settings.overlay_probability, "crop": 1.0,
        "adjust_hue": 1.0, "adjust_brightness": 1.0, "adjust_contrast": 1.0, "adjust_saturation": 1.0,
        "pixelize": 0.25, "shuffle_pixels": 0.25, "grayscale": 0.25, "blur": 0.25, "erase": 0.25,
        "encode": settings.encoding_probability, "perspective": settings.probability,
        "overlay_text": settings.probability, "overlay_emoji": settings.probability,
        "edge_enhance": settings.edge_probability,
    }  # fmt: skip
    counts = Counter(name for calls in record.views for name, _ in calls)
    assert set(counts) == {*expected, "flip"}
    for name, probability in expected.items():
        chance(counts[name], count, probability)
    flips = Counter(record.of("flip", "axis"))
    chance(flips[1], count, 0.5)
    chance(flips[0], count, 0.1)


def test_the_strengths_are_the_recipes() -> None:
    stated = {
        name: (views.probability, views.encoding_probability, views.edge_probability, views.jitter)
        for name, views in TRAININGS.items()
    }
    assert stated == {"v83": (0.25, 0.25, 0.25, 0.7), "v86": (0.3, 0.3, 0.3, 0.75), "v98": (0.35, 0.35, 0.3, 0.8)}
    overlays = {
        name: (views.overlay_probability, views.overlay_size.low, views.overlay_size.high, views.overlay_min_opacity)
        for name, views in TRAININGS.items()
    }
    assert overlays == {"v83": (0.05, 0.4, 0.6, 0.6), "v86": (0.075, 0.3, 0.7, 0.5), "v98": (0.1, 0.2, 0.8, 0.4)}
