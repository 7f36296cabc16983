"""Keys: a changed setting changes exactly the stages that depend on it."""

from pathlib import Path

import pytest

from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.pipeline import Pipeline, build_pipeline, check_run_name, find_stage, with_weights
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import StageSpec, canonical_json


def demo(*overrides: str, digest: str = "data") -> Pipeline:
    return build_pipeline(load_settings("demo", overrides), "source", digest)


def changed(*overrides: str, digest: str = "data") -> list[str]:
    return [old.name for old, new in zip(demo(), demo(*overrides, digest=digest), strict=True) if old.key != new.key]


def test_every_stage_stands_after_its_inputs() -> None:
    seen: set[str] = set()
    for stage in demo():
        assert {ref.stage for ref in stage.inputs.values()} <= seen
        seen.add(stage.name)


def test_a_setting_reruns_exactly_what_depends_on_it() -> None:
    assert changed("postprocess.beta=0.1") == ["postprocess", "evaluate"]
    assert changed("evaluate.gallery=1") == ["evaluate"]
    assert changed("trainings.v107.lr=0.1") == ["train-v107", "extract", "postprocess", "evaluate"]
    assert changed("trainings.v98.lr=0.1") == [
        "train-v98", "train-v107", "extract-v98", "extract", "postprocess", "evaluate",
    ]  # fmt: skip
    assert changed(digest="other") == [stage.name for stage in demo()]


def test_the_machine_is_no_part_of_a_key() -> None:
    assert changed("compute.threads=7") == []


def test_given_weights_stand_for_the_trainings_before() -> None:
    pipeline = with_weights(demo(), "extract", "f" * 64)
    assert [stage.name for stage in pipeline] == [
        "weights", "download", "extract-untrained", "extract-whitened", "extract", "postprocess", "evaluate",
    ]  # fmt: skip
    assert find_stage(pipeline, "extract").inputs["weights"].stage == "weights"
    assert find_stage(pipeline, "extract").key != find_stage(demo(), "extract").key


def test_weights_may_start_a_later_training() -> None:
    pipeline = with_weights(demo(), "train-v107", "f" * 64)
    assert find_stage(pipeline, "train-v107").inputs["start"].stage == "weights"
    assert "train-v98" not in [stage.name for stage in pipeline]


def test_concatenated_trainings_are_extracted_once_and_scored_only_if_compared() -> None:
    pipeline = demo("postprocess.concatenate=[v98, v86]", "evaluate.compare=[untrained, v98]")
    names = [stage.name for stage in pipeline if stage.program == "extract"]
    assert names == ["extract-untrained", "extract-v98", "extract-v86", "extract"]
    assert list(find_stage(pipeline, "postprocess").inputs) == ["extract-v98", "extract-v86", "extract"]
    assert find_stage(pipeline, "extract-v86").inputs["weights"].stage == "train-v86"
    scored = [name for name in find_stage(pipeline, "evaluate").inputs if name.startswith("extract")]
    assert scored == ["extract-untrained", "extract-v98", "extract"]


def test_options_of_postprocess_run_nothing_before_it_again() -> None:
    assert changed("postprocess.concatenate=[v98]") == ["postprocess", "evaluate"]  # v98 is extracted to be compared
    assert changed("postprocess.score_normalisation={neighbours: 5, weight: 1}") == ["postprocess", "evaluate"]
    joined = find_stage(demo("postprocess.concatenate=[v98]"), "postprocess").key
    retrained = find_stage(demo("postprocess.concatenate=[v98]", "trainings.v98.lr=0.1"), "postprocess").key
    assert joined != retrained


def test_given_weights_cannot_stand_for_a_concatenated_training() -> None:
    both = demo("postprocess.concatenate=[v86, v98]")
    with pytest.raises(UsageError, match=r"--from extract leave out the training of v86, v98.*concatenate=\[\]"):
        with_weights(both, "extract", "f" * 64)
    with pytest.raises(UsageError, match="leave out the training of v86, whose"):
        with_weights(both, "train-v98", "f" * 64)
    kept = with_weights(demo("postprocess.concatenate=[v98]"), "train-v98", "f" * 64)
    assert set(find_stage(kept, "postprocess").inputs) == {"extract", "extract-v98"}


def test_weights_for_a_stage_without_them_are_refused() -> None:
    with pytest.raises(UsageError, match="expected one of train-v86"):
        with_weights(demo(), "postprocess", "f" * 64)
    with pytest.raises(UsageError, match="unknown stage"):
        with_weights(demo(), "nothing", "f" * 64)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "x" * 41, "../x"])
def test_an_unusable_run_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_run_name(name)


def test_a_specification_survives_its_file(tmp_path: Path) -> None:
    spec = demo()[1].spec(run="r", attempt=1, store="/s")
    path = tmp_path / "spec.json"
    path.write_bytes(canonical_json(spec.model_dump(mode="json")))
    assert StageSpec.read(path) == spec


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"program": 3}'])
def test_a_wrong_specification_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="stage specification"):
        StageSpec.read(path)
    with pytest.raises(UsageError, match="cannot read"):
        StageSpec.read(tmp_path / "absent.json")
