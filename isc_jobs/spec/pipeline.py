"""The pipeline: stages as values, in order, with the keys of their outputs."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.plain import expected_one_of
from isc_jobs.spec.settings import TRAINING_NAMES, Settings
from isc_jobs.spec.stage import InputRef, StageSpec, stage_key

# A program's version is bumped whenever its results change, so that old outputs are not reused.
PROGRAM_VERSIONS = {"download": 3, "weights": 1, "train": 5, "extract": 5, "postprocess": 3, "evaluate": 5}

RUN_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One node of the pipeline; its key covers all that its result depends on."""

    name: str
    program: str
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, InputRef] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """SHA-256 (hex) of program, version, settings, inputs' keys and parameters."""
        version = PROGRAM_VERSIONS[self.program]
        return stage_key(self.program, version, self.settings, self.inputs, self.parameters)

    @property
    def ref(self) -> InputRef:
        """How later stages name this one's output."""
        return InputRef(stage=self.name, key=self.key)

    def spec(self, run: str, attempt: int, store: str) -> StageSpec:
        """The specification of one attempt."""
        return StageSpec(
            program=self.program, stage=self.name, key=self.key, run=run, attempt=attempt, store=store,
            settings=self.settings, inputs=self.inputs, parameters=self.parameters, execution=self.execution,
        )  # fmt: skip


Pipeline = tuple[Stage, ...]


def build_pipeline(settings: Settings, source: str, source_digest: str) -> Pipeline:
    """All stages in an order in which each stands after its inputs.

    ``source_digest`` stands for the data: SHA-256 of the source's listing.
    """
    values = settings.model_dump(mode="json")
    download = Stage(
        name="download", program="download", settings={"data": values["data"]},
        parameters={"source_digest": source_digest},
        execution={"source": source, "compute": values["compute"]},
    )  # fmt: skip
    trainings = _trainings(values, download)
    extracts = _extracts(values, download, trainings)
    compared, joined = (
        [extracts[f"extract-{name}"] for name in names] + [extracts["extract"]]
        for names in (settings.evaluate.compare, settings.postprocess.concatenate)
    )
    postprocess = Stage(
        name="postprocess", program="postprocess", settings={"postprocess": values["postprocess"]},
        inputs={stage.name: stage.ref for stage in joined}, execution={"compute": values["compute"]},
    )  # fmt: skip
    evaluate = Stage(
        name="evaluate", program="evaluate",
        settings={"evaluate": values["evaluate"], "queries": values["extract"]["queries"]},
        inputs={stage.name: stage.ref for stage in (download, *trainings, *compared, postprocess)},
        execution={"compute": values["compute"]},
    )  # fmt: skip
    return (download, *trainings, *extracts.values(), postprocess, evaluate)


def _trainings(values: dict[str, Any], download: Stage) -> list[Stage]:
    stages: dict[str, Stage] = {}
    for name in TRAINING_NAMES:
        training = values["trainings"][name]
        inputs = {"data": download.ref}
        if training["start"] in stages:
            inputs["start"] = stages[training["start"]].ref
        stages[name] = Stage(
            name=f"train-{name}", program="train", settings={"model": values["model"], "training": training},
            inputs=inputs, execution={"compute": values["compute"]},
        )  # fmt: skip
    return list(stages.values())


def _extracts(values: dict[str, Any], download: Stage, trainings: list[Stage]) -> dict[str, Stage]:
    """By name: the compared and the concatenated extractions first, then the final one, named plainly ``extract``."""
    weights = {stage.name.removeprefix("train-"): stage for stage in trainings}
    names = dict.fromkeys((*values["evaluate"]["compare"], *values["postprocess"]["concatenate"]))
    stages = [_extract(values, download, f"extract-{name}", weights.get(name)) for name in names]
    return {stage.name: stage for stage in (*stages, _extract(values, download, "extract", trainings[-1]))}


def _extract(values: dict[str, Any], download: Stage, name: str, weights: Stage | None) -> Stage:
    """With no ``weights`` input the descriptors are the pretrained backbone's pooled features, whitened if so named."""
    inputs = {"data": download.ref} | ({"weights": weights.ref} if weights else {})
    return Stage(
        name=name, program="extract", inputs=inputs,
        settings={"model": values["model"], "extract": values["extract"]}
        | ({"whitened": True} if name == "extract-whitened" else {}),
        execution={"compute": values["compute"]},
    )  # fmt: skip


def with_weights(pipeline: Pipeline, before: str, digest: str) -> Pipeline:
    """The pipeline in which a given weights file (SHA-256 ``digest``) stands for the training that ends before
    stage ``before``; trainings up to it, and comparisons with them, are left out.

    Raises UsageError if ``before`` takes no weights, or if descriptors of a training left out are to be concatenated.
    """
    names = [stage.name for stage in pipeline]
    target = find_stage(pipeline, before)
    replaced = target.inputs.get("start") or target.inputs.get("weights")
    if replaced is None:
        takers = [stage.name for stage in pipeline if {"start", "weights"} & set(stage.inputs)]
        raise UsageError(f"--weights with --from {before}: expected one of {', '.join(takers)}")
    weights = Stage(name="weights", program="weights", parameters={"sha256": digest})
    dropped = {name for name in names[: names.index(replaced.stage) + 1] if name.startswith("train-")}
    dropped |= {f"extract-{name.removeprefix('train-')}" for name in dropped}
    _check_concatenated(find_stage(pipeline, "postprocess"), dropped, before)
    return _rewire([weights, *(stage for stage in pipeline if stage.name not in dropped)], replaced.stage, dropped)


def _check_concatenated(postprocess: Stage, dropped: set[str], before: str) -> None:
    lost = [name.removeprefix("extract-") for name in postprocess.inputs if name in dropped]
    if lost:
        raise UsageError(
            f"--weights with --from {before} leave out the training of {', '.join(lost)}, whose descriptors "
            "postprocess.concatenate asks for: set postprocess.concatenate=[], or train"
        )


def _rewire(stages: list[Stage], replaced: str, dropped: set[str]) -> Pipeline:
    """Point inputs at the given weights, drop inputs from stages that are gone, renew all references."""
    refs: dict[str, InputRef] = {}
    rewired = []
    for stage in stages:
        wanted = {name: "weights" if ref.stage == replaced else ref.stage for name, ref in stage.inputs.items()
                  if name not in dropped}  # fmt: skip
        changed = replace(stage, inputs={name: refs[source] for name, source in wanted.items() if source in refs})
        refs[changed.name] = changed.ref
        rewired.append(changed)
    return tuple(rewired)


def find_stage(pipeline: Pipeline, name: str) -> Stage:
    """The stage of that name; raises UsageError that lists the names there are."""
    for stage in pipeline:
        if stage.name == name:
            return stage
    raise UsageError(f"unknown stage {name!r}: {expected_one_of(name, [stage.name for stage in pipeline])}")


def check_run_name(name: str) -> str:
    """The name, if it can be part of Kubernetes object names; raises UsageError otherwise."""
    if not RUN_NAME.fullmatch(name):
        raise UsageError(f"run name {name!r}: expected 1-30 of a-z, 0-9 and '-', beginning and ending with no '-'")
    return name
