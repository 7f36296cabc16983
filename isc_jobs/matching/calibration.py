"""From which score on a pair is called a copy: by a ground truth, or by edited copies of some references.

Of the sampled references every other one stays where it is; its edited copy has a right answer. The rest are taken
out of the references for this: their copies are strangers, to which every answer is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isc_jobs.matching.pictures import Picture, digest
from isc_jobs.retrieval.metrics import score_matches
from isc_jobs.retrieval.submission import GroundTruth, Matches
from isc_jobs.spec.pipeline import PROGRAM_VERSIONS


@dataclass(frozen=True)
class Sampled:
    """A reference and the edited copy made of it."""

    picture: Picture
    other: Picture  # perhaps laid over it
    stays: bool

    @property
    def key(self) -> str:
        """Of the edited copy: the same picture, other and version of the views make the same copy."""
        return digest("edit", str(PROGRAM_VERSIONS["train"]), self.picture.key, self.other.key)


def choose_sample(references: Sequence[Picture], most: int) -> list[Sampled]:
    """Up to ``most`` references in an order that only their ids decide: with new references most stay the same."""
    chosen = sorted(references, key=lambda picture: digest("sample", picture.id))[:most]
    return [Sampled(picture, chosen[(place + 1) % len(chosen)], place % 2 == 0) for place, picture in enumerate(chosen)]


@dataclass(frozen=True)
class Curve:
    """Precision and recall of all pairs down to each score, best first."""

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    def lowest(self, precision: float) -> int | None:
        """Place of the lowest score down to which precision is at least so high; None if it never is."""
        good = np.flatnonzero(self.precision >= precision)
        return int(good[-1]) if len(good) else None


def curve_of(matches: Matches, truth: GroundTruth) -> Curve:
    """The curve of claimed pairs whose queries the ground truth names; wrong ones come first among equals."""
    scores = score_matches(matches, truth)
    kept = np.array([query in truth.queries for query in matches.queries], bool)
    return Curve(-np.sort(-matches.scores[kept]), scores.precision, scores.recall)
