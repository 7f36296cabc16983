"""Settings are typed, frozen and refuse what is wrong with the key's path."""

from pathlib import Path
from typing import Any

import pytest

from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.quantity import amount
from isc_jobs.spec.settings import TRAINING_NAMES


def test_isc21_states_the_recipe() -> None:
    trainings = load_settings("isc21").trainings
    rows = [getattr(trainings, name) for name in TRAINING_NAMES]
    assert [row.epochs for row in rows] == [6, 6, 2, 10]
    assert [row.schedule_epochs for row in rows] == [10, 7, 3, 10]
    assert [row.input_size for row in rows] == [256, 384, 512, 512]
    assert [row.lr for row in rows] == [0.1 / 4, 0.1 / 8, 0.1 / 16, 0.5 / 16]
    assert [row.memory_size for row in rows] == [20000, 20000, 20000, 1000]
    assert [row.negative_margin for row in rows] == [1.0, 1.0, 1.0, 1.1]


def test_isc21_postprocesses_as_the_original_without_the_options() -> None:
    settings = load_settings("isc21")
    assert settings.extract.test_time_augmentation == "none"
    assert settings.postprocess.model_dump() == {
        "concatenate": (), "dba_neighbours": 10, "dba_power": 3.0, "negative_neighbours": 10, "beta": 0.35,
        "score_normalisation": None, "top_k": 10,
    }  # fmt: skip


def test_a_quarter_of_the_documented_compute_is_not_run() -> None:
    """Counted in pixels that pass the model: epochs after the used ones give weights that nothing starts from."""
    run = planned = 0
    for name in TRAINING_NAMES:
        row = getattr(load_settings("isc21").trainings, name)
        samples = (row.sample_size or 4991) // row.global_batch * row.global_batch
        pixels = samples * (2 + row.extra_negatives) * row.input_size**2
        run += row.epochs * pixels
        planned += row.schedule_epochs * pixels
    assert 1 - run / planned == pytest.approx(0.2692, abs=5e-5)


def test_the_options_beside_the_recipe_are_off() -> None:
    settings = load_settings("isc21")
    for name in TRAINING_NAMES:
        row = getattr(settings.trainings, name)
        assert (row.koleo_weight, row.hard_group) == (0, 1)
    assert not settings.compute.compile
    assert load_settings("demo").compute.compile is False


def test_an_override_changes_one_value_and_keeps_the_rest() -> None:
    changed = load_settings("demo", ["trainings.v83.lr=0.5"])
    assert changed.trainings.v83.lr == 0.5
    assert changed.trainings.v86 == load_settings("demo").trainings.v86


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainings.v83.rate=1", "trainings.v83.rate: unknown key"),
        ("trainings.v83.epoch=1", "trainings.v83.epoch: unknown key, is epochs meant?"),
        ("trainings.v84.epochs=1", "trainings.v84: unknown key, expected v83, v86, v98, v107"),
        ("extract.batch=many", "extract.batch: found 'many', expected a whole number"),
        ("extract.batch=0", "extract.batch: found 0, expected more than 0"),
        ("trainings.v86.start=v98", "v86.start is 'v98', expected one of pretrained, v83"),
        ("trainings.v98.epochs=9", "epochs 9 is above schedule_epochs"),
        ("extract.target_set=x", "extract.target_set"),
        (
            "extract.test_time_augmentation=true",
            "extract.test_time_augmentation: found True, expected 'none', 'mirror'",
        ),
        ("postprocess.concatenate=[v86, v98, v86]", "concatenate names a training twice: v86, v98, v86"),
        ("postprocess.concatenate=[v107]", "postprocess.concatenate.0: found 'v107', expected 'v83', 'v86' or 'v98'"),
        ("postprocess.score_normalisation.weight=1", "postprocess.score_normalisation.neighbours: missing"),
        (
            "postprocess.score_normalisation={neighbours: 5, weight: -1}",
            "score_normalisation.weight: found -1, expected at least 0",
        ),
        ("trainings.v83=3", "trainings.v83: found 3, expected a mapping of keys to values"),
        ("cluster.namespace=A_B", "cluster.namespace: found 'A_B': expected small letters, digits and -"),
        (
            "cluster.stages.train.memory=12Q",
            "memory: found '12Q': expected a number above 0, alone or with one of m, k, M, G",
        ),
        ("cluster.stages.train.cpu=8", "cpu: found 8, expected text, in quotes"),
        ("trainings.v83.seeds=[]", "trainings.v83.seeds: found [], expected at least 1 of them"),
        ("trainings.v83.lr=.nan", "trainings.v83.lr: found nan, expected"),
        ("model=3", "model"),
        ("nonsense", "expected key=value"),
        ("a..b=1", "expected key=value"),
        ("extract.batch=[", "--set extract.batch is not valid YAML"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(override: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_settings("demo", [override])
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def paths(values: dict[str, Any], above: str = "") -> list[str]:
    """Of all settings, with those that hold others."""
    return [
        path for name, value in values.items()
        for path in (f"{above}{name}", *(paths(value, f"{above}{name}.") if isinstance(value, dict) else []))
    ]  # fmt: skip


def refusal(override: str) -> str:
    """What is said to it; nothing if it is taken."""
    try:
        load_settings("isc21", [override])
    except UsageError as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize("value", ["3.5", "-1", "text", "[1]", "{a: 1}", "null", "true", "99999999999999999999999"])
def test_no_wrong_value_is_explained_in_the_words_of_a_library(value: str) -> None:
    said = [refusal(f"{path}={value}") for path in paths(load_settings("isc21").model_dump())]
    assert sum(map(bool, said)) > len(said) / 4
    for word in ("nput should", "alid ", "instance", "pattern", "dictionary", "items", "NoneType"):
        assert [sentence for sentence in said if word in sentence] == []


def test_amounts_are_those_of_kubernetes() -> None:
    assert [amount(text) for text in ("500m", "16", "2Gi", "1.5k")] == [0.5, 16, 2**31, 1500]
    for text in ("", "much", "0", "1 Gi", "-1", "1e3", "\u0663"):
        with pytest.raises(ValueError, match="expected a number above 0"):
            amount(text)


def test_a_file_extends_a_profile(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: demo\nextract: {batch: 7}\n")
    (tmp_path / "own.yaml").write_text("extends: base.yaml\npostprocess: {beta: 0.5}\n")
    settings = load_settings(str(tmp_path / "own.yaml"))
    assert (settings.extract.batch, settings.postprocess.beta) == (7, 0.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1, 2]", "expected a mapping"),
        ("a: [", "not valid YAML"),
        ("extends: 3", "expected a profile name or file"),
        ("extends: own.yaml", "extends itself"),
        ("{}", "keys are missing: a file that changes some has a line 'extends: isc21'"),
        ("extend: demo", "extend: unknown key, is extends meant\\?; .*keys are missing"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        load_settings(str(path))


@pytest.mark.parametrize("name", ["nothing", "nothing.yaml"])
def test_an_unknown_profile_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="nothing"):
        load_settings(name)


def test_gpus_of_all_pods_are_the_processes_of_a_training() -> None:
    two_pods = ["cluster.stages.train.pods=2", "cluster.stages.train.gpus=4"]
    assert load_settings("isc21", two_pods).cluster.stages.train.gpus == 4
    with pytest.raises(UsageError, match=r"2 pods of 8 GPUs make 16 processes of a training, compute.processes is 8"):
        load_settings("isc21", two_pods[:1])
    with pytest.raises(UsageError, match=r"is not divisible by cluster.stages.train.pods 3"):
        load_settings("isc21", ["cluster.stages.train.pods=3"])
    with pytest.raises(UsageError, match=r"postprocess.pods is 2, but its work is not shared"):
        load_settings("isc21", ["cluster.stages.postprocess.pods=2"])
