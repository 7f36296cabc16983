"""Rows and labels of a sample: views or a pair, and extra negatives outside the ground truth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from photo_samples import COUNTS, TRUTH, Folder, samples, training

from isc_jobs.spec.errors import DataError
from isc_jobs.training.dataset import NEGATIVE_LABELS
from isc_jobs.vision.resize import load_resized
from isc_jobs.vision.shards import ShardSet

NAMED = {int(reference[1:]) for _, reference in TRUTH if reference}  # R000000, R000002, …


@pytest.mark.parametrize("name", ["v98", "v107"])
def test_extra_negatives_are_plain_references_that_the_ground_truth_does_not_name(
    name: str, small_photos: Path
) -> None:
    chosen = training(name)
    rows, references, seen = samples(chosen, small_photos), ShardSet(Folder(small_photos), "reference"), set()
    for epoch in range(8):
        for index in range(len(rows)):
            pixels, labels = rows[epoch, index]
            assert labels[:2].tolist() == [index, index]
            places = (labels[2:] - 1_000_000).tolist()
            assert len(set(places)) == chosen.extra_negatives
            for place, row in zip(places, pixels[2:], strict=True):
                assert np.array_equal(row, load_resized(references.read(place), chosen.input_size))
            seen |= set(places)
    assert seen == set(range(COUNTS["reference"])) - NAMED  # all others come, none that is named


def test_a_pair_is_the_query_and_the_reference_of_the_ground_truth(small_photos: Path) -> None:
    rows = samples(training("v107"), small_photos)
    queries, references = (ShardSet(Folder(small_photos), name) for name in ("query_phase1", "reference"))
    assert len(rows) == 8  # two queries have no reference
    for index in range(8):
        pixels, _ = rows[0, index]
        assert np.array_equal(pixels[0], load_resized(queries.read(index), 32))
        assert np.array_equal(pixels[1], load_resized(references.read(2 * index), 32))


def test_no_label_of_a_reference_is_that_of_a_sample_however_many_there_are(small_photos: Path) -> None:
    truth = [TRUTH[0]] * (NEGATIVE_LABELS + 20)  # as 1,000,020 samples
    chosen = training("v107", "extra_negatives=12")
    rows = samples(chosen, small_photos, truth)
    _, labels = rows[0, NEGATIVE_LABELS + 1]
    assert labels[0] == NEGATIVE_LABELS + 1
    assert labels[2:].min() >= len(rows)
    assert labels[2:].max() < len(rows) + COUNTS["reference"]


def test_what_is_drawn_depends_on_seed_epoch_and_index_alone(small_photos: Path) -> None:
    chosen = training("v98")
    rows, others = samples(chosen, small_photos), samples(chosen, small_photos)
    for key in reversed([(epoch, index) for epoch in range(2) for index in range(6)]):
        rows[key]  # in another order
    for key in [(0, 3), (1, 3), (0, 4)]:
        for ours, theirs in zip(rows[key], others[key], strict=True):
            assert torch.equal(ours, theirs)
    reseeded = samples(training("v98", "seeds=[1000]"), small_photos)
    for changed in (rows[1, 3], rows[0, 4], reseeded[0, 3]):
        assert not torch.equal(changed[0], rows[0, 3][0])
        assert not torch.equal(changed[1][2:], rows[0, 3][1][2:])


def test_more_negatives_than_there_are_are_refused(small_photos: Path) -> None:
    with pytest.raises(DataError, match="extra_negatives 13: only 12 references are outside the ground truth"):
        samples(training("v107", "extra_negatives=13"), small_photos)[0, 0]


def test_a_ground_truth_of_other_pictures_is_refused(small_photos: Path) -> None:
    with pytest.raises(DataError, match="names 'R999999', which is not among the pictures"):
        samples(training("v107"), small_photos, [("Q00000", "R999999")])
