"""The stage specification: the one file a stage program reads."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.problems import in_words
from isc_jobs.spec.settings import Compute, Frozen

_Section = TypeVar("_Section", bound=Frozen)


class InputRef(Frozen):
    """A committed stage output in the store: ``artifacts/<stage>/<key>/``."""

    stage: str
    key: str


class StageSpec(Frozen):
    """What one attempt of a stage does; written by the controller, or by hand for use alone.

    ``key`` names the output: SHA-256 of program, version, settings, inputs and parameters.
    ``settings`` holds only what the program uses; ``parameters`` are values of this stage alone
    (``training`` for train, ``source_digest`` for download). ``execution`` is what may change without
    changing the result, and so is not in the key: the source's address and the ``compute`` settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str  # download, train, extract, postprocess, evaluate
    stage: str  # its name in the pipeline, as train-v83
    key: str
    run: str
    attempt: int
    store: str  # URI
    settings: dict[str, Any]
    inputs: dict[str, InputRef]
    parameters: dict[str, Any]
    execution: dict[str, Any]

    @property
    def prefix(self) -> str:
        """Where the attempt's specification, progress, logs and last words are in the store."""
        return attempt_prefix(self.run, self.stage, self.attempt)

    @classmethod
    def read(cls, path: Path) -> "StageSpec":
        """Read a specification file; raises UsageError that names what is wrong."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UsageError(f"cannot read the stage specification {path}: {error.strerror}") from error
        except ValidationError as error:
            raise UsageError(f"stage specification {path}: {first_problem(error)}") from error

    @classmethod
    def parse(cls, data: bytes | str, name: str) -> "StageSpec":
        """A kept specification called ``name``; raises DataError that names what is wrong."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise DataError(f"{name} is damaged: {first_problem(error)}") from error

    def setting(self, name: str, kind: type[_Section]) -> _Section:
        """The settings of that name; raises UsageError that names what is wrong."""
        return _section(self.settings, f"settings.{name}", kind)

    def compute(self) -> Compute:
        """How the machine is to be used; raises UsageError that names what is wrong."""
        return _section(self.execution, "execution.compute", Compute)


class LastWords(Frozen):
    """How a stage's process ended, as it leaves it for the controller: its exit code and why."""

    exit_code: Annotated[int, Field(ge=0, le=255)]
    reason: str

    @classmethod
    def read(cls, data: bytes | str) -> "LastWords | None":
        """None for what is cut short or no stage's."""
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            return None


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, after the path to it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {in_words(first)}" if where else in_words(first)


def _section(values: dict[str, Any], where: str, kind: type[_Section]) -> _Section:
    name = where.rpartition(".")[2]
    if name not in values:
        raise UsageError(f"stage specification: {where} is missing")
    try:
        return kind.model_validate(values[name])
    except ValidationError as error:
        raise UsageError(f"stage specification: {where}: {first_problem(error)}") from error


def attempt_prefix(run: str, stage: str, number: int) -> str:
    """Where everything of an attempt is in the store."""
    return f"runs/{run}/{stage}/attempt-{number}"


def curve_key(prefix: str) -> str:
    """Where a running training keeps what its curves show, of the attempt of this prefix."""
    return f"{prefix}/progress-curve.csv"


def canonical_json(value: object) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def stage_key(
    program: str, version: int, settings: dict[str, Any], inputs: dict[str, InputRef], parameters: dict[str, Any]
) -> str:
    """SHA-256 (hex) of everything a stage's result depends on."""
    content = {
        "program": program,
        "version": version,
        "settings": settings,
        "inputs": {name: ref.key for name, ref in inputs.items()},
        "parameters": parameters,
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()
