"""Which stages a run has."""

import pytest

from isc_jobs.controller.request import Request, pipeline_of, wanted_part
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.profile import load_settings


def part(first: str | None, last: str | None, weights: str | None = None) -> list[str]:
    request = Request(
        run="a", settings=load_settings("demo").model_dump(mode="json"), source="/nowhere", anonymous=False,
        source_digest="0" * 64, weights_sha256=weights, first=first, last=last, launcher="local",
    )  # fmt: skip
    return [stage.name for stage in wanted_part(pipeline_of(request), request)]


def test_a_run_ends_with_the_stage_that_is_asked_for_and_has_what_that_needs() -> None:
    assert part(None, "train-v86") == ["download", "train-v83", "train-v86"]
    assert part(None, "extract-v83") == ["download", "train-v83", "extract-v83"]
    assert part("train-v86", "extract-v98") == ["train-v86", "train-v98", "extract-v98"]
    assert part("evaluate", None) == ["evaluate"]
    assert "extract-whitened" not in part(None, "postprocess")
    assert part(None, "evaluate") == part(None, None)


def test_given_weights_take_the_place_of_the_trainings() -> None:
    assert part("extract", "postprocess", "1" * 64) == ["weights", "download", "extract", "postprocess"]


def test_a_part_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(UsageError, match="--from extract stands after --until train-v83"):
        part("extract", "train-v83")
