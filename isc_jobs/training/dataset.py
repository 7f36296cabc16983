"""Samples of a training step: views of a training image or a ground-truth pair, and extra negatives."""

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from isc_jobs.spec.errors import DataError
from isc_jobs.spec.settings import Training
from isc_jobs.training.schedule import seed_of
from isc_jobs.vision.decode import Encoded, Pixels
from isc_jobs.vision.resize import load_resized
from isc_jobs.vision.shards import ShardSet
from isc_jobs.vision.views import hard_view, moderate_view

NEGATIVE_LABELS = 1_000_000  # labels of extra negatives begin here, or after the last sample's if there are more
_CACHE_BYTES = 256 << 20  # of unaugmented pictures, per loader process


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """By (epoch, index): rows (2 + extra, size, size, 3) uint8 and labels (2 + extra,).

    All that is drawn for a sample comes from (seed, epoch, index): no process or worker changes it.
    """

    def __init__(self, training: Training, images: ShardSet, pairs: "Pairs", negatives: "Negatives") -> None:
        """``images`` for samples of images, ``pairs`` for samples of pairs."""
        self._training, self._images, self._pairs, self._negatives = training, images, pairs, negatives
        self._first_negative = max(NEGATIVE_LABELS, len(self))

    def __len__(self) -> int:
        """Images or pairs."""
        return len(self._images if self._training.samples == "images" else self._pairs)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The rows and labels of a sample."""
        epoch, index = key
        rng = np.random.default_rng([seed_of(self._training, epoch), epoch, index])
        size = self._training.input_size
        rows = self._views(index, rng) if self._training.samples == "images" else self._pairs.rows(index, size)
        labels = [index, index]
        for reference in self._negatives.draw(self._training.extra_negatives, rng):
            rows.append(self._negatives.row(reference, size))
            labels.append(self._first_negative + reference)
        return torch.from_numpy(np.stack(rows)), torch.tensor(labels)

    def _views(self, index: int, rng: Generator) -> list[Pixels]:
        views, size = self._training.views, self._training.input_size
        assert views is not None  # settings refuse images without views
        picture = Encoded(self._images.read(index))
        other = int(rng.integers(len(self._images)))
        # The hard view first: its crop is the smaller one, so what is decoded for it serves the moderate one too.
        hard = hard_view(picture, lambda: Encoded(self._images.read(other)), size, views, rng)
        return [moderate_view(picture, size, rng), hard]


class Pairs:
    """Ground-truth pairs of phase 1: query and original, unedited."""

    def __init__(self, queries: ShardSet, references: ShardSet, ground_truth: list[tuple[str, str]]) -> None:
        """Raises DataError for an id that has no picture."""
        places = (
            {id_: place for place, id_ in enumerate(queries.ids)},
            {id_: p for p, id_ in enumerate(references.ids)},
        )
        try:
            self._pairs = [(places[0][query], places[1][reference]) for query, reference in ground_truth if reference]
        except KeyError as error:
            raise DataError(f"the ground truth names {error.args[0]!r}, which is not among the pictures") from error
        self._read = _Reader(queries), _Reader(references)

    def __len__(self) -> int:
        """How many pairs."""
        return len(self._pairs)

    def rows(self, index: int, size: int) -> list[Pixels]:
        """Query and reference, resized."""
        return [read(place, size) for read, place in zip(self._read, self._pairs[index], strict=True)]


class Negatives:
    """References outside the ground truth of phase 1, by their position among all references.

    One that it names would stand in v107 under two labels, as a positive and as a negative. The original leaves them
    out there and not in v98; here they are left out of both. It is 1 reference in 200, and v98's score on phase 1 is
    then of references that no training has seen.
    """

    def __init__(self, references: ShardSet, ground_truth: list[tuple[str, str]]) -> None:
        """Positions follow ids, sorted, so every process draws the same pictures."""
        used = {reference for _, reference in ground_truth}
        self._places = np.array([place for place, id_ in enumerate(references.ids) if id_ not in used], np.int64)
        self._read = _Reader(references)

    def draw(self, count: int, rng: Generator) -> list[int]:
        """Distinct random references; raises DataError if there are not so many."""
        if count > len(self._places):
            raise DataError(
                f"extra_negatives {count}: only {len(self._places)} references are outside the ground truth"
            )
        return [int(place) for place in rng.choice(self._places, count, replace=False)] if count else []

    def row(self, place: int, size: int) -> Pixels:
        """A reference, resized."""
        return self._read(place, size)


class _Reader:
    def __init__(self, pictures: ShardSet) -> None:
        self._pictures = pictures
        self._cache: dict[tuple[int, int], Pixels] = {}

    def __call__(self, place: int, size: int) -> Pixels:
        key = (place, size)
        if key not in self._cache:
            pixels = load_resized(self._pictures.read(place), size)
            if (len(self._cache) + 1) * pixels.nbytes > _CACHE_BYTES:
                return pixels
            self._cache[key] = pixels
        return self._cache[key]
