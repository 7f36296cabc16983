"""From which score on a pair is called a copy: by a ground truth, or by edited copies of some references.

Of the sampled references every other one stays where it is; its edited copy has a right answer. The rest are taken
out of the references for this: their copies are strangers, to which every answer is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from isc_jobs.matching.pictures import Picture, digest
from isc_jobs.spec.pipeline import PROGRAM_VERSIONS


@dataclass(frozen=True)
class Sampled:
    """A reference and the edited copy made of it."""

    picture: Picture
    other: Picture  # perhaps laid over it
    stays: bool

    @property
    def key(self) -> str:
        """Of the edited copy: the same pictures, seed and version of the views make the same copy."""
        return digest("edit", str(PROGRAM_VERSIONS["train"]), self.picture.key, self.other.key, self.seed)

    @property
    def seed(self) -> str:
        """Of its edits, 32 hexadecimal digits: the pictures' ids decide alone, wherever the folder is, however old."""
        return digest("seed", self.picture.id, self.other.id)


def choose_sample(references: Sequence[Picture], most: int) -> list[Sampled]:
    """Up to ``most`` references in an order that only their ids decide: with new references most stay the same."""
    chosen = sorted(references, key=lambda picture: digest("sample", picture.id))[:most]
    return [Sampled(picture, chosen[(place + 1) % len(chosen)], place % 2 == 0) for place, picture in enumerate(chosen)]
