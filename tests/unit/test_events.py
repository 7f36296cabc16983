"""TensorBoard's file holds the history."""

import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from isc_jobs.training.events import write_events
from isc_jobs.training.loop import HISTORY

HISTORY_ROWS = [[1, 0, 0.9, 0.5, 0.4, 0.0, 0.1, 2.0], [2, 0, 0.7, 0.4, 0.3, 0.0, 0.05, 3.0]]


def events(path: Path) -> list[Event]:
    """Records of a length, its checksum, the bytes and theirs."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_every_step_has_its_values_at_its_time(tmp_path: Path) -> None:
    write_events(tmp_path / "tensorboard", "train-v83", HISTORY_ROWS)
    [path] = (tmp_path / "tensorboard").iterdir()
    assert path.name == "events.out.tfevents.0.train-v83"
    values = {(event.summary.value[0].tag, event.step): (event.summary.value[0].simple_value, event.wall_time)
              for event in events(path) if event.summary.value}  # fmt: skip
    for row, time in zip(HISTORY_ROWS, (2.0, 5.0), strict=True):
        for tag, column in (("loss", "loss"), ("loss/positive", "positive_loss"), ("learning_rate", "lr")):
            assert values[tag, row[0]] == (pytest.approx(row[HISTORY.index(column)]), time)
    assert len(values) == 12
