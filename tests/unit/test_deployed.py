"""Settings of a cluster stand between the profile and what the command line says."""

import pytest

from isc_jobs.controller.deployed import Deployed, parse_deployed
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.profile import load_settings


def test_no_config_map_is_nothing() -> None:
    assert parse_deployed(None) == Deployed(settings=({}, {}))


def test_addresses_and_settings_are_read_in_order() -> None:
    found = {"data": {
        "store": "s3://b/runs", "source": "", "settings.yaml": "extract: {batch: 7}\ncluster: {pending_seconds: 5}",
        "images.yaml": "cluster: {images: {data: registry/data@sha256:0}}",
    }}  # fmt: skip
    deployed = parse_deployed(found)
    assert (deployed.store, deployed.source) == ("s3://b/runs", None)
    settings = load_settings("demo", ["extract.batch=9"], deployed=deployed.settings)
    assert settings.extract.batch == 9
    assert settings.cluster.pending_seconds == 5
    assert settings.cluster.images.data == "registry/data@sha256:0"


@pytest.mark.parametrize("text", ["a: [", "- x", "3"])
def test_other_yaml_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"settings\.yaml"):
        parse_deployed({"data": {"settings.yaml": text}})


def test_unknown_deployed_settings_are_named() -> None:
    with pytest.raises(UsageError, match=r"cluster\.nonsense"):
        load_settings("demo", deployed=[{"cluster": {"nonsense": 1}}])
