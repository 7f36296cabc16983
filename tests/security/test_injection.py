"""Settings, names and variables of make are data to every shell, kubelet and YAML reader that they pass."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import isc_jobs
from hypothesis import given
from hypothesis import strategies as st

from isc_jobs.controller.jobs import check_jobs, controller_job
from isc_jobs.controller.manifests import attempt_objects, run_owner
from isc_jobs.controller.podspec import literal
from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.pipeline import build_pipeline, find_stage
from isc_jobs.spec.profile import load_settings

ROOT = Path(__file__).parents[2]
SECRET = "$(AWS_SECRET_ACCESS_KEY)"
HOSTILE = [
    SECRET, f"$${SECRET}", "$$", "${HOME}", "$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "',
    "a\nkind: Secret\n---\nb: c", "{{ x }} {%x%} %s", "- !!python/object/apply:os.system ['touch pwned']", "yes", "1e3",
    "&a *a", "# no comment", "trailing: ", "\x1b[31m\u202e", " lead",
]  # fmt: skip
IMAGES = [
    f"cluster.images.{name}=registry.example/{name}@sha256:{'0' * 64}" for name in ("controller", "data", "train")
]


def expand(text: str, variables: dict[str, str]) -> str:
    """What the kubelet makes of commands and variables: ``Expand`` of k8s.io/kubernetes/third_party/forked/golang."""

    def read(found: "re.Match[str]") -> str:
        if found[0].startswith("$("):
            return variables.get(found[1], found[0])
        return "$" if found[0] == "$$" else found[0]

    return re.sub(r"\$\(([^)]*)\)|\$\$|\$\(|\$.", read, text, flags=re.DOTALL)


def test_the_kubelet_would_expand_what_is_not_literal() -> None:
    assert expand(f"s3://bucket/{SECRET}", {"AWS_SECRET_ACCESS_KEY": "sEcret"}) == "s3://bucket/sEcret"
    assert expand(f"$${SECRET}", {"AWS_SECRET_ACCESS_KEY": "sEcret"}) == "$sEcret"


@given(st.text(st.sampled_from("$()AB x"), max_size=20))
def test_literal_text_comes_through_the_kubelet_as_it_is(text: str) -> None:
    assert expand(literal(text), {"A": "secret", "B": "secret", "": "secret", "AB": "secret"}) == text


def objects_with(text: str) -> tuple[list[dict[str, Any]], str]:
    """All that a run and a check create where every free string is this one; and the store."""
    store = f"s3://runs/{text}"
    settings = load_settings(
        "demo", [*IMAGES, "compute.processes=2"],
        deployed=[{"cluster": {
            "environment": {"FREE": text}, "annotations": {"a": text}, "labels": {"l": text}, "priority_class": text,
            "node_selector": {"n": text}, "service_account": text, "s3_secret": text, "controller_s3_secret": text,
            "pull_secrets": [text],
            "tolerations": [{"key": text}], "images": {"data": text},
        }}],
    )  # fmt: skip
    pipeline, cluster = build_pipeline(settings, f"s3://photos/{text}", "0" * 64), settings.cluster
    made = [run_owner("mine", store, cluster), controller_job("mine", store, cluster)]
    made += check_jobs("isc-check", store, cluster)
    for stage in ("download", "train-v83", "extract"):
        made += attempt_objects(find_stage(pipeline, stage).spec("mine", 1, store), cluster)
    return made, store


def containers(item: Any) -> list[dict[str, Any]]:
    if isinstance(item, dict):
        return [*item.get("containers", []), *(found for value in item.values() for found in containers(value))]
    return [found for value in item for found in containers(value)] if isinstance(item, list) else []


@pytest.mark.parametrize("text", HOSTILE)
def test_no_string_of_a_setting_is_expanded_in_a_pod(text: str) -> None:
    made, store = objects_with(text)
    found = containers(made)
    assert len(found) == 7
    secrets = {"AWS_SECRET_ACCESS_KEY": "sEcret", "touch pwned": "sEcret"}
    for container in found:
        values = {v["name"]: expand(v["value"], secrets) for v in container["env"] if "value" in v}
        assert values["FREE"] == text
        assert values.get("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", "${rank}| ") == "${rank}| "
        command = [expand(part, secrets) for part in container["command"]]
        assert not [part for part in command if "sEcret" in part]
        if store in "".join(command):
            assert store in command
        assert command[0] == "python"
    assert [c["command"][-1] for c in found if c["command"][2] == "isc_jobs.store.probe"] == 2 * [literal(store)]


@pytest.mark.parametrize("text", HOSTILE)
def test_rendered_manifests_read_as_the_objects_that_were_made(text: str) -> None:
    made, _ = objects_with(text)
    assert list(yaml.safe_load_all(yaml.safe_dump_all(made, sort_keys=False, width=120))) == made


@pytest.mark.parametrize("namespace", ["../kube-system", "a/b", "A", "a b", "-a", "", "a\n", "a?x=y", "a" * 64])
def test_a_namespace_is_a_name(namespace: str) -> None:
    """It is part of the addresses at the API server."""
    with pytest.raises(UsageError, match=r"cluster\.namespace"):
        load_settings("demo", deployed=[{"cluster": {"namespace": namespace}}])


def test_a_command_line_is_not_obeyed_by_the_terminal_it_is_repeated_on(tmp_path: Path) -> None:
    done = isc_jobs("run-all", "--source", tmp_path, "--store", tmp_path / "s", "--run=\x1b[2J\nv83  finished")
    assert (done.returncode, done.stdout) == (64, "")
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stderr


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Programs that leave their arguments in the file ``said``; kubectl, where it is, shows what it would apply."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {"isc-jobs": f'printf "%s\\0" "$@" >>"{tmp_path}/said"'}
    if kubectl := shutil.which("kubectl"):
        programs["kubectl"] = f'"{kubectl}" kustomize "${{@: -1}}" >"{tmp_path}/said"'
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def shell(tools: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"} | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "name", ["My holiday photos", 'it\'s "fine"', "a; touch pwned", "`touch pwned`", "-x", "# $$HOME & *"]
)
def test_make_takes_a_folder_of_any_name(name: str, tools: Path, tmp_path: Path) -> None:
    """A dollar is doubled, as make asks for."""
    photos = f"{tmp_path}/{name}"
    done = shell(
        tools, "make", "--silent", "demo", f"BIN={tools}", "USE=", f"PHOTOS={photos}", f"DEMO={tmp_path}/{name}"
    )
    assert done.returncode == 0, done.stderr
    meant = photos.replace("$$", "$")
    data = f"{meant}/dataset-{Path(meant).name}"
    made = ["dataset", "make", "--out", data, "--", meant]
    ran = ["run-all", "--profile", "demo", "--source", data, "--store", f"{meant}/store", "--run", "demo"]
    assert (tmp_path / "said").read_text().split("\0")[:-1] == [*made, *ran]
    assert not list(tmp_path.glob("**/pwned"))
    assert not (ROOT / "pwned").exists()


@pytest.mark.parametrize(
    "registry", ["a b", "x|e touch pwned;", "x'\nb: c", "$(touch pwned)", "-v/etc:/etc", "u:p@host/x"]
)
def test_a_registry_is_a_registry(registry: str, tools: Path) -> None:
    done = shell(tools, "images/build", REGISTRY=registry, IMAGE_BUILDER="true")
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == "images: REGISTRY is no registry and path, as registry.example.com/team\n"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl builds what deploy applies: there is none here")
@pytest.mark.parametrize("text", [*HOSTILE[:9], "a=b,c=d", "it's", '"quoted"'])
def test_deploy_leaves_store_and_source_as_they_are(text: str, tools: Path, tmp_path: Path) -> None:
    (tmp_path / "images.yaml").write_text("cluster: {}\n")
    overlay = tmp_path / "it's an: 'overlay"
    overlay.mkdir()
    base = os.path.relpath(ROOT / "k8s/overlays/dev", overlay)
    (overlay / "kustomization.yaml").write_text(f"resources: [{base}]\n")
    store, source = f"s3://runs/{text}", f"s3://photos/{text}"
    done = shell(tools, "k8s/deploy", OVERLAY=str(overlay), STORE=store, SOURCE=source,
                 IMAGES_FILE=str(tmp_path / "images.yaml"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all((tmp_path / "said").read_text()))
    [found] = [item["data"] for item in objects if item["kind"] == "ConfigMap"]
    assert (found["store"], found["source"], found["images.yaml"]) == (store, source, "cluster: {}\n")
    assert "Secret" not in {item["kind"] for item in objects}
    assert not (ROOT / "pwned").exists()


def test_deploy_refuses_credentials_without_repeating_them(tools: Path) -> None:
    done = shell(tools, "k8s/deploy", OVERLAY="dev", STORE="s3://key:sEcret@bucket", SOURCE="s3://photos")
    assert (done.returncode, "STORE" in done.stderr, "sEcret" in done.stderr + done.stdout) == (64, True, False)
