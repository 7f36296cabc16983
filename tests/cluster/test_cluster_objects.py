"""What the API server says of our objects: admitted under the restricted level, granted what is needed and no more."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import NAMESPACE, ON_A_CLUSTER, ROOT, Deployment, kubectl

from isc_jobs.controller.deployed import parse_deployed
from isc_jobs.controller.kubernetes.check import RIGHTS
from isc_jobs.spec.profile import load_settings

pytestmark = ON_A_CLUSTER
GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.yaml"))
# Everybody may ask what he may do, and find out what the server has.
ALWAYS = {
    "selfsubjectreviews.authentication.k8s.io", "selfsubjectaccessreviews.authorization.k8s.io",
    "selfsubjectrulesreviews.authorization.k8s.io",
}  # fmt: skip


@pytest.fixture(scope="module")
def strict() -> Iterator[str]:
    """A namespace of the restricted Pod Security level, with the accounts that pods name."""
    name = "isc-jobs-strict"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    for account in ("isc-jobs-stage", "isc-jobs-controller"):
        kubectl("create", "serviceaccount", account, "--namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def templates(item: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of an object."""
    if item["kind"] == "Job":
        return [item["spec"]["template"]]
    return [r["template"] for r in item["spec"].get("pytorchReplicaSpecs", {}).values()] if "spec" in item else []


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_objects_and_their_pods_are_admitted_under_the_restricted_level(path: Path, strict: str) -> None:
    create = ("create", "--dry-run=server", "--namespace", strict, "--filename", "-")
    for item in yaml.safe_load_all(path.read_text()):
        item["metadata"]["namespace"] = strict
        kubectl(*create, given=yaml.safe_dump(item))
        for number, template in enumerate(templates(item)):
            template["spec"].pop("priorityClassName", None)  # of the user's cluster
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": template["spec"]}
            kubectl(*create, given=yaml.safe_dump(pod))


@pytest.mark.parametrize("overlay", ["dev", "gpu"])
def test_overlays_are_admitted(overlay: str, deployment: Deployment) -> None:
    done = subprocess.run(
        ["kubectl", "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-k", f"k8s/overlays/{overlay}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("overlay", ["dev", "gpu", "kueue"])
def test_an_overlays_settings_are_settings(overlay: str) -> None:
    objects = [*yaml.safe_load_all(kubectl("kustomize", ROOT / f"k8s/overlays/{overlay}"))]
    found = next(item for item in objects if item["kind"] == "ConfigMap")
    settings = load_settings("isc21", deployed=parse_deployed(found).settings)
    assert settings != load_settings("isc21")


def test_the_controllers_account_may_do_what_it_does_and_nothing_else(deployment: Deployment) -> None:
    account = f"--as=system:serviceaccount:{NAMESPACE}:isc-jobs-controller"
    table = kubectl("auth", "can-i", "--list", "--namespace", NAMESPACE, account, "--no-headers").splitlines()
    granted = {}
    for line in table:
        name, *_, verbs = line.split(maxsplit=1)[0], line[line.rindex("[") + 1 : line.rindex("]")]
        if (not line.startswith(" ") and "/" not in name.split(".")[0]) or name.startswith("pods/"):
            granted[name] = set(verbs.split())
    expected = {f"{resource}.{group}" if group else resource: set(verbs) for group, resource, verbs in RIGHTS}
    assert {name: verbs for name, verbs in granted.items() if name not in ALWAYS} == expected


def test_a_stages_account_may_do_nothing(deployment: Deployment) -> None:
    account = f"--as=system:serviceaccount:{NAMESPACE}:isc-jobs-stage"
    for verb, kind in (("get", "pods"), ("get", "secrets"), ("create", "jobs.batch"), ("list", "configmaps")):
        done = subprocess.run(
            ["kubectl", "auth", "can-i", verb, kind, "--namespace", NAMESPACE, account],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.strip() == "no"
