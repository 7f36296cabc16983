"""When a training writes its next checkpoint; nothing of it touches what is trained."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from isc_jobs.spec.checkpoint_interval import checkpoint_interval
from isc_jobs.spec.settings import Compute

_REMEMBERED = 5  # checkpoints whose cost is looked at: one that met a slow store decides nothing alone


class CheckpointPace:
    """After every so many steps, or at the interval that costs least for what a checkpoint was seen to cost."""

    def __init__(self, compute: Compute, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to count time now; ``clock`` tells seconds."""
        self._every, self._clock = compute.checkpoint_every_steps, clock
        self._between_failures_s = compute.mean_hours_between_failures * 3600
        self._costs: deque[float] = deque(maxlen=_REMEMBERED)
        self._since = clock()

    @property
    def interval_s(self) -> float:
        """Seconds of work between checkpoints; the first one, whose cost is not known, comes at the shortest."""
        return checkpoint_interval(median(self._costs) if self._costs else 0.0, self._between_failures_s)

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be written after this step."""
        if self._every == "auto":
            return self._clock() - self._since >= self.interval_s
        return step % self._every == 0

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure the checkpoint that is written within."""
        started = self._clock()
        yield
        self._since = self._clock()
        self._costs.append(self._since - started)
