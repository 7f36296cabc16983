"""Targets: settings, stage specifications, run manifests, names on the command line."""

import contextlib
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import mutators
from contract import Broken, Target

from isc_jobs import cli
from isc_jobs.controller.deployed import parse_deployed
from isc_jobs.controller.manifest import manifest_key, read_manifest
from isc_jobs.controller.request import Request, pipeline_of, wanted_part
from isc_jobs.controller.status import run_status, status_table
from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.pipeline import build_pipeline
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Data, Evaluate, Extract, Frozen, Model, Postprocess, Training
from isc_jobs.spec.stage import StageSpec
from isc_jobs.store import open_store

_SECTIONS: dict[str, type[Frozen]] = {
    "data": Data, "model": Model, "training": Training, "extract": Extract, "postprocess": Postprocess,
    "evaluate": Evaluate,
}  # fmt: skip
_YAML = b"""extends: demo
trainings:
  v83: {lr: 0.01, epochs: 2, restart_epoch: 1, seeds: [1, 2]}
  v107: {views: null}
cluster:
  tolerations: [{key: gpu, operator: Exists}]
  labels: {team: a}
extract: {batch: 8, target_set: qr}
data: &data {max_bad_share: 0.1}
"""


def _profile(data: bytes, folder: Path) -> object:
    path = folder / "mine.yaml"
    path.write_bytes(data)
    return load_settings(str(path))


def _override(data: bytes, _folder: Path) -> object:
    return load_settings("demo", [data.decode("utf-8", "surrogateescape")])


def _deployed(data: bytes, _folder: Path) -> object:
    text = data.decode("utf-8", "replace")
    deployed = parse_deployed({"data": {"gpu.yaml": text, "settings.yaml": "{}"}})
    return load_settings("isc21", deployed=deployed.settings)


def _stage_spec(data: bytes, folder: Path) -> object:
    path = folder / "spec.json"
    path.write_bytes(data)
    spec = StageSpec.read(path)
    for name in spec.settings:
        if name in _SECTIONS:
            spec.setting(name, _SECTIONS[name])
    if "compute" in spec.execution:
        spec.compute()
    return spec


def _manifest(data: bytes, folder: Path) -> object:
    store = open_store(str(folder / "store"))
    store.put(manifest_key("mine"), data)
    manifest, _ = read_manifest(store, "mine")
    if manifest.request.run != "mine":
        raise Broken(f"a manifest of another run is read: {manifest.request.run!r}")
    status_table(run_status(store, "mine"))
    return wanted_part(pipeline_of(manifest.request), manifest.request)


def _names(data: bytes, folder: Path) -> None:
    """Arguments, a line each, of the commands that take names."""
    words = data.decode("utf-8", "surrogateescape").replace("\0", "").split("\n")
    arguments = [*words[:8], "--store", str(folder / "store")]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = cli.main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    if code not in {0, 64, 65}:
        raise Broken(f"exit code {code}: {said.getvalue()[:300]!r}")
    if code:
        raise UsageError(said.getvalue()[:1_000].replace("\x1b", ""))


@cache
def _specs() -> list[bytes]:
    pipeline = build_pipeline(load_settings("demo"), "/photos", "0" * 64)
    return [stage.spec("mine", 1, "/store").model_dump_json().encode() for stage in pipeline]


def request(**changes: Any) -> Request:
    """A run's, of the demo's settings."""
    values: dict[str, Any] = {
        "run": "mine", "settings": load_settings("demo").model_dump(mode="json"), "source": "/photos",
        "anonymous": False, "source_digest": "0" * 64, "weights_sha256": None, "first": None, "last": None,
        "launcher": "local",
    }  # fmt: skip
    return Request(**(values | changes))


@cache
def manifests() -> list[bytes]:
    """One of a run that failed."""
    stages = {stage.name: stage.key for stage in pipeline_of(request())}
    manifest = {
        "request": json.loads(request().model_dump_json()), "stages": stages, "state": "failed", "reason": "r",
        "epoch": 1, "attempts": [{"stage": "download", "attempt": 1, "exit_code": 65, "reason": "bad"}],
    }  # fmt: skip
    return [json.dumps(manifest).encode()]


TARGETS = (
    Target(name="profile", run=_profile, seeds=lambda: [_YAML], mutate=mutators.of_yaml, errors=(UsageError,),
           names="mine.yaml"),
    Target(name="override", run=_override, mutate=mutators.of_lines, errors=(UsageError,),
           seeds=lambda: [b"trainings.v83.lr=0.1", b"cluster.labels={a: b}", b"model.backbone=x"]),
    Target(name="deployed", run=_deployed, seeds=lambda: [_YAML.replace(b"extends: demo\n", b"")],
           mutate=mutators.of_yaml, errors=(UsageError,)),
    Target(name="stage-spec", run=_stage_spec, seeds=_specs, mutate=mutators.of_json, errors=(UsageError,),
           names="stage specification"),
    Target(name="manifest", run=_manifest, seeds=manifests, mutate=mutators.of_json, errors=(UsageError, DataError)),
    Target(name="names", run=_names, mutate=mutators.of_lines,
           seeds=lambda: [b"status\nmine", b"logs\nmine\ntrain-v83\n--attempt\n1", b"logs\nmine\ncontroller",
                          b"cancel\nmine", b"resume\nmine"]),
)  # fmt: skip
