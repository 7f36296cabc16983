"""A training's history as TensorBoard reads it."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

_TAGS = {2: "loss", 3: "loss/positive", 4: "loss/negative", 5: "loss/koleo", 6: "learning_rate", 7: "seconds_a_step"}


def write_events(folder: Path, name: str, history: Sequence[Sequence[float]]) -> None:
    """Write one event file for ``tensorboard --logdir``; ``history``: rows of ``loop.HISTORY``.

    Times are those since the training began, whatever was interrupted meanwhile.
    """
    writer = SummaryWriter(str(folder), max_queue=1000, write_to_disk=True)
    times = itertools.accumulate(row[7] for row in history)
    for row, time in zip(history, times, strict=True):
        for column, tag in _TAGS.items():
            writer.add_scalar(tag, row[column], int(row[0]), walltime=time)
    writer.close()
    [file] = folder.iterdir()
    file.rename(folder / f"events.out.tfevents.0.{name}")
