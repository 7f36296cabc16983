"""The objects of an attempt, as files beside this test; ``UPDATE_GOLDEN=1`` writes them anew."""

import os
from pathlib import Path

import pytest
import yaml

from isc_jobs.controller.jobs import check_jobs, controller_job
from isc_jobs.controller.manifests import attempt_objects, run_owner, same_specification
from isc_jobs.controller.podspec import Object
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.pipeline import build_pipeline, find_stage
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Settings
from isc_jobs.spec.stage import StageSpec

HERE = Path(__file__).parent
IMAGES = [
    f"cluster.images.{name}=registry.example/isc-jobs/{name}@sha256:{'0' * 64}"
    for name in ("controller", "data", "train")
]
CASES = {
    "demo-download": ("demo", "download", []),
    "demo-train-two-pods": ("demo", "train-v83", ["compute.processes=2", "cluster.stages.train.pods=2"]),
    "isc21-download": ("isc21", "download", []),
    "isc21-train": ("isc21", "train-v107", ["cluster.s3_secret=null"]),
    "isc21-extract-placed": ("isc21", "extract", [
        "cluster.pull_secrets=[registry]", "cluster.node_selector={accelerator: h100}", "cluster.priority_class=batch",
        "cluster.tolerations=[{key: nvidia.com/gpu, operator: Exists}]", "cluster.annotations={team: retrieval}",
        "cluster.labels={kueue.x-k8s.io/queue-name: gpus}", "cluster.environment={AWS_REGION: eu-central-1}",
    ]),
}  # fmt: skip


def prepared(profile: str, name: str, overrides: list[str]) -> tuple[StageSpec, Settings]:
    settings = load_settings(profile, [*IMAGES, *overrides])
    pipeline = build_pipeline(settings, "s3://photos/disc21", "0" * 64)
    return find_stage(pipeline, name).spec("mine", 2, "s3://runs/store"), settings


@pytest.mark.parametrize("case", CASES)
def test_objects_are_those_of_the_file(case: str) -> None:
    spec, settings = prepared(*CASES[case])
    objects: list[Object] = [run_owner("mine", spec.store, settings.cluster), *attempt_objects(spec, settings.cluster)]
    objects[1]["data"] = {"spec.json": "(the stage specification)"}
    compare(case, objects)


def compare(case: str, objects: list[Object]) -> None:
    text = yaml.safe_dump_all(objects, sort_keys=False, width=120)
    path = HERE / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


def test_jobs_beside_the_stages_are_those_of_the_file() -> None:
    cluster = prepared("isc21", "download", ["cluster.pull_secrets=[registry]"])[1].cluster
    compare(
        "jobs",
        [controller_job("mine", "s3://runs/store", cluster), *check_jobs("isc-check", "s3://runs/store", cluster)],
    )


def test_without_an_image_nothing_is_made() -> None:
    settings = load_settings("isc21")
    spec, _ = prepared("isc21", "download", [])
    with pytest.raises(UsageError, match=r"cluster\.images\.data is not set"):
        attempt_objects(spec, settings.cluster)


def test_an_attempt_is_recognised_by_its_specification() -> None:
    spec, settings = prepared(*CASES["demo-download"])
    found = attempt_objects(spec, settings.cluster)[0]
    assert same_specification(found, spec)
    assert not same_specification(found, spec.model_copy(update={"key": "other"}))


def test_names_fit_kubernetes_at_their_longest() -> None:
    spec, settings = prepared("demo", "extract-untrained", [])
    longest = spec.model_copy(update={"run": "r" * 30, "attempt": 99})
    assert all(len(item["metadata"]["name"]) <= 63 for item in attempt_objects(longest, settings.cluster))
