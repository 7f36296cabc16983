"""How often to look at what lasts: rarely at what has lasted long."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Seconds between looks: a ``part`` of the time waited so far, but ``least`` or ``most``."""

    part: float
    least: float
    most: float

    def after(self, waited: float) -> float:
        """Until the next look, after ``waited`` seconds."""
        return min(max(waited * self.part, self.least), self.most)
