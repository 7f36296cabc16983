"""What docs/threat-model.md says of pods, accounts and network, read from the manifests."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml

from isc_jobs.controller.jobs import controller_job
from isc_jobs.controller.manifests import attempt_objects
from isc_jobs.spec.pipeline import build_pipeline
from isc_jobs.spec.profile import load_settings

ROOT = Path(__file__).parents[2]
BASE = ROOT / "k8s/base"


def objects(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def pods(item: Any) -> list[dict[str, Any]]:
    if isinstance(item, dict):
        return [item] if "containers" in item else [found for value in item.values() for found in pods(value)]
    return [found for value in item for found in pods(value)] if isinstance(item, list) else []


@pytest.mark.parametrize("path", sorted((ROOT / "tests/golden").glob("*.yaml")), ids=lambda path: path.stem)
def test_pods_have_no_root_no_capabilities_and_stages_no_token(path: Path) -> None:
    found = pods(objects(path))
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        controls = pod["serviceAccountName"] == "isc-jobs-controller"
        assert pod["automountServiceAccountToken"] is controls
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not [volume for volume in pod["volumes"] if not {"emptyDir", "configMap"} & volume.keys()]
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip


def test_controllers_may_have_keys_of_their_own_which_no_stage_gets() -> None:
    images = [f"cluster.images.{name}=image" for name in ("controller", "data", "train")]
    settings = load_settings("demo", [*images, "cluster.controller_s3_secret=theirs"])
    stage = build_pipeline(settings, "s3://photos", "0" * 64)[0].spec("mine", 1, "s3://runs")
    attempt, controller = (
        attempt_objects(stage, settings.cluster),
        controller_job("mine", "s3://runs", settings.cluster),
    )
    assert "theirs" not in str(attempt)
    assert "'name': 'isc-jobs-s3'" in str(attempt)
    assert str(controller).count("'name': 'theirs'") == 3
    assert "isc-jobs-s3" not in str(controller)


def test_no_account_hands_out_its_token_by_itself() -> None:
    accounts = [item for item in objects(BASE / "accounts.yaml") if item["kind"] == "ServiceAccount"]
    assert [item["automountServiceAccountToken"] for item in accounts] == [False, False]
    [role] = [item for item in objects(BASE / "accounts.yaml") if item["kind"] == "Role"]
    assert "secrets" not in str(role)
    assert "*" not in str(role)


def reaches(egress: list[dict[str, Any]], address: str, port: int) -> bool:
    """Whether a rule allows it; a rule without ``to`` allows every address."""
    for rule in egress:
        blocks = [peer["ipBlock"] for peer in rule.get("to", []) if "ipBlock" in peer]
        inside = "to" not in rule or any(
            _in(address, block["cidr"]) and not any(_in(address, hole) for hole in block.get("except", []))
            for block in blocks
        )
        if inside and port in [entry["port"] for entry in rule["ports"]]:
            return True
    return False


def _in(address: str, network: str) -> bool:
    found, block = ipaddress.ip_address(address), ipaddress.ip_network(network)
    return found.version == block.version and found in block


def test_stages_reach_s3_and_names_but_no_metadata_service() -> None:
    policies = {item["metadata"]["name"]: item["spec"] for item in objects(BASE / "network.yaml")}
    assert policies["isc-jobs-default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    egress = policies["isc-jobs-store"]["egress"]
    for address in ("203.0.113.7", "10.0.0.7", "2001:db8::7"):
        assert reaches(egress, address, 443)
        assert reaches(egress, address, 9000)
        assert not reaches(egress, address, 6443)
        assert not reaches(egress, address, 80)
    for address in ("169.254.169.254", "169.254.170.2", "169.254.170.23", "fe80::1", "fd00:ec2::254"):
        assert not [port for port in (80, 443, 988, 9000) if reaches(egress, address, port)]
    assert reaches(egress, "169.254.20.10", 53)  # a node's own cache of names
    assert policies["isc-jobs-controller"]["podSelector"]["matchExpressions"][0]["key"] == "isc-jobs.io/controller"


def test_the_namespace_enforces_baseline_and_tells_of_what_is_not_restricted() -> None:
    [namespace] = objects(BASE / "namespace.yaml")
    levels = {name.rpartition("/")[2]: level for name, level in namespace["metadata"]["labels"].items()}
    assert levels == {"enforce": "baseline", "warn": "restricted", "audit": "restricted"}
