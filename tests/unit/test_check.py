"""What make deploy says of a cluster: everything that is there, and everything that is missing."""

from pathlib import Path
from typing import Any

import yaml
from fake_cluster import FakeApi

from isc_jobs.controller.kubernetes.check import RIGHTS, check_cluster
from isc_jobs.controller.podspec import Object
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.pipeline import build_pipeline
from isc_jobs.spec.profile import load_settings

ROLE = Path(__file__).parents[2] / "k8s/base/accounts.yaml"
SETTINGS = load_settings("demo", [f"cluster.images.{name}=image" for name in ("controller", "data", "train")])
PIPELINE = build_pipeline(SETTINGS, "s3://photos", "0" * 64)


class Cluster(FakeApi):
    """Whose pods end at once as told."""

    status: dict[str, Any]
    said = b"store s3://runs: conditional writes are kept\n"

    def create(self, item: Object, *, dry_run: bool = False) -> Object:
        made = super().create(item, dry_run=dry_run)
        for name in self.names("Pod"):
            self.logs[name] = self.said
            self.set_pod(name, **self.status)
        return made


def checked(api: FakeApi) -> list[tuple[bool | None, str]]:
    return list(check_cluster(api, PIPELINE, SETTINGS.cluster, "s3://runs"))


def test_a_cluster_that_has_all_is_told_so_and_keeps_nothing() -> None:
    api = Cluster()
    api.status = {"phase": "Succeeded"}
    found = checked(api)
    assert [line for line in found if line[0] is False] == []
    assert found[-1] == (True, "pods: all images are pulled; store s3://runs: conditional writes are kept")
    assert "13 ConfigMaps, 9 Jobs, 4 PyTorchJobs" in found[2][1]
    assert not api.objects


def test_everything_that_is_missing_is_said_at_once() -> None:
    api = Cluster()
    api.allowed = False
    state = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "isc-jobs-s3" not found'}}
    api.status = {"phase": "Pending", "containerStatuses": [{"state": state}]}
    missing = [sentence for found, sentence in checked(api) if found is False]
    assert len(missing) == 2
    assert "you may not create configmaps, get configmaps" in missing[0]
    assert 'stage cannot start: CreateContainerConfigError: secret "isc-jobs-s3" not found' in missing[1]
    assert not api.objects


def test_a_store_that_a_pod_cannot_use_is_said_in_its_words() -> None:
    api = Cluster()
    api.said = b"probe: store s3://runs overwrites in spite of if_none_match\n"
    ended = {"exitCode": 64, "reason": "Error", "message": ""}
    api.status = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended}}]}
    found, sentence = checked(api)[-1]
    assert (found, sentence.partition("-stage: ")[2]) == (False, api.said.decode().strip())


def test_a_cluster_without_the_operator_is_told_to_install_it() -> None:
    class Bare(Cluster):
        def create(self, item: Object, *, dry_run: bool = False) -> Object:
            if item["kind"] == "PyTorchJob":
                raise UsageError("the cluster has no PyTorchJob of kubeflow.org/v1: install its operator")
            return super().create(item, dry_run=dry_run)

    api = Bare()
    api.status = {"phase": "Succeeded"}
    missing = [sentence for found, sentence in checked(api) if found is False]
    assert missing == ["the cluster has no PyTorchJob of kubeflow.org/v1: install its operator"]


def test_the_role_grants_what_a_controller_does_and_no_more() -> None:
    role = next(item for item in yaml.safe_load_all(ROLE.read_text()) if item["kind"] == "Role")
    granted = {(r["apiGroups"][0], resource, tuple(r["verbs"])) for r in role["rules"] for resource in r["resources"]}
    assert granted == set(RIGHTS)
