"""What the user asked for, and the pipeline that follows from it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.pipeline import Pipeline, build_pipeline, find_stage, with_weights
from isc_jobs.spec.settings import Settings
from isc_jobs.spec.stage import first_problem
from isc_jobs.store import Store
from isc_jobs.store.artifacts import file_sha256, publish, read_commit, verify_commit
from isc_jobs.store.listing import keep_listing

_WEIGHTS = "weights.pth.tar"


class Request(BaseModel):
    """What the user asked for; enough to resume it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    settings: dict[str, Any]
    source: str
    anonymous: bool
    source_digest: str
    weights_sha256: str | None
    first: str | None  # --from
    last: str | None  # --until
    launcher: Literal["local", "kubernetes"]

    @property
    def made_of(self) -> tuple[str, str | None]:
        """What is in the source, and given weights."""
        return self.source_digest, self.weights_sha256

    def checked_settings(self) -> Settings:
        """Raises DataError for settings that this version does not know, as an older run's may be."""
        try:
            return Settings.model_validate(self.settings)
        except ValidationError as error:
            raise DataError(
                f"run {self.run}: its settings are not those of this version ({first_problem(error)}): start it again"
            ) from error


def pipeline_of(request: Request) -> Pipeline:
    """The request's pipeline; raises UsageError for wrong stages, DataError for settings of another version."""
    pipeline = build_pipeline(request.checked_settings(), request.source, request.source_digest)
    for stage in pipeline:
        if stage.program == "download":
            stage.execution["anonymous"] = request.anonymous
    if request.weights_sha256 is not None:
        pipeline = with_weights(pipeline, request.first or "extract", request.weights_sha256)
    return pipeline


def wanted_part(pipeline: Pipeline, request: Request) -> Pipeline:
    """The stages from --from on that --until needs, and itself; with given weights, those before --from too."""
    names = [stage.name for stage in pipeline]
    end = names.index(find_stage(pipeline, request.last).name) if request.last else len(names) - 1
    begin = 0
    if request.first and request.weights_sha256 is None:
        begin = names.index(find_stage(pipeline, request.first).name)
    if begin > end:
        raise UsageError(f"--from {request.first} stands after --until {request.last}: order is {', '.join(names)}")
    needed = _needed(pipeline, names[end]) if request.last else set(names)
    return tuple(stage for stage in pipeline[begin : end + 1] if stage.name in needed)


def _needed(pipeline: Pipeline, last: str) -> set[str]:
    """Names of a stage and of all that it depends on."""
    found = {last}
    for stage in reversed(pipeline):
        if stage.name in found:
            found |= {ref.stage for ref in stage.inputs.values()}
    return found


def committed_stages(store: Store, pipeline: Pipeline) -> frozenset[str]:
    """Stages whose output is committed and whole."""
    found = set()
    for stage in pipeline:
        commit = read_commit(store, stage.ref)
        if commit is not None and verify_commit(store, commit):
            found.add(stage.name)
    return frozenset(found)


def check_inputs(part: Pipeline, committed: frozenset[str]) -> None:
    """Raises UsageError if a stage before --from has no output."""
    names = {stage.name for stage in part}
    for stage in part:
        lost = [r.stage for r in stage.inputs.values() if r.stage not in names | committed and r.stage != "weights"]
        if lost:
            raise UsageError(
                f"--from {part[0].name}: {stage.name} needs {lost[0]}, which is not finished: begin earlier"
            )


@dataclass(frozen=True)
class Given:
    """Files of this machine that a run needs in its store: trained weights, if given, and the source's listing."""

    weights: Path | None
    listing: Path

    def bring(self, store: Store, request: Request, pipeline: Pipeline) -> None:
        """Upload what is not there yet."""
        keep_listing(store, request.source_digest, self.listing)
        if self.weights is not None:
            import_weights(store, request, pipeline, self.weights)


def import_weights(store: Store, request: Request, pipeline: Pipeline, path: Path) -> None:
    """Commit a given weights file as the output of the stage ``weights``."""
    ref = find_stage(pipeline, "weights").ref
    if read_commit(store, ref) is not None:
        return
    if file_sha256(path) != request.weights_sha256:
        raise UsageError(f"--weights {path} has changed while it was read: run again")
    with tempfile.TemporaryDirectory(prefix="isc-jobs-") as folder:
        (Path(folder) / _WEIGHTS).symlink_to(path.resolve())
        publish(store, ref, Path(folder), run=request.run, attempt=1, summary={}, provenance={}, seconds=0.0)


def cancel_key(run: str) -> str:
    """Where a wish to cancel is left for the controller."""
    return f"runs/{run}/cancel.json"
