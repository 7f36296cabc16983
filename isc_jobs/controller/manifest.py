"""The run manifest: what a run is and what happened, one object replaced with If-Match."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from isc_jobs.controller.lease import LeaseLost
from isc_jobs.controller.plan import Attempt, Kind, failure_kind
from isc_jobs.controller.request import Request
from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.stage import first_problem
from isc_jobs.store import NotFound, Store

State = Literal["running", "succeeded", "failed", "cancelled", "interrupted"]


class AttemptRecord(BaseModel):
    """One attempt, as it ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    attempt: int
    key: str | None = None  # of the output that it was to make; None: written by an earlier version
    exit_code: int | None = None
    kind: Kind | Literal["finished"] | None = None  # None: written by an earlier version
    reason: str = ""
    pod: str = ""
    evidence: str = ""

    @classmethod
    def of(cls, attempt: Attempt, *, finished: bool) -> Self:
        """Of an attempt that has ended; ``finished`` if its stage's output is committed."""
        kind = "finished" if finished else failure_kind(attempt.exit_code)
        return cls(stage=attempt.stage, attempt=attempt.number, key=attempt.key, exit_code=attempt.exit_code, kind=kind,
                   reason=attempt.reason, pod=attempt.pod, evidence=attempt.evidence)  # fmt: skip

    @property
    def state(self) -> Literal["failed", "interrupted"]:
        """Of the stage after it, if nothing follows; "interrupted": by what was no fault of the stage's."""
        return "interrupted" if self.kind == "disruption" else "failed"


class Running(BaseModel):
    """An attempt that has not ended: where it is, and why it waits if it does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    attempt: int
    where: str = ""
    waits: str = ""


class Manifest(BaseModel):
    """A run's state in the store."""

    model_config = ConfigDict(extra="forbid")

    request: Request
    stages: dict[str, str]  # name -> key, in order
    part: list[str] | None = None  # of them, those that shall run; None: all, or written by an earlier version
    state: State
    reason: str = ""
    epoch: int  # of the lease that wrote it
    attempts: list[AttemptRecord] = []
    running: list[Running] = []

    def wants(self, stage: str) -> bool:
        """Whether the stage shall run, or has."""
        return self.part is None or stage in self.part

    def standing(self, state: State, reason: str) -> Self:
        """The same in this state."""
        running = self.running if state == "running" else []
        return self.model_copy(update={"state": state, "reason": reason, "running": running})


def manifest_key(run: str) -> str:
    """Where a run's manifest is."""
    return f"runs/{run}/manifest.json"


def read_manifest(store: Store, run: str) -> tuple[Manifest, str]:
    """Manifest and entity tag; raises UsageError for an unknown run, DataError for a damaged manifest."""
    try:
        data, etag = store.get(manifest_key(run))
        manifest = Manifest.model_validate_json(data)
    except NotFound as error:
        keys = (info.key.split("/") for info in store.list("runs/"))
        runs = sorted({parts[1] for parts in keys if parts[2:] == ["manifest.json"]})
        raise UsageError(f"no run {run!r} in {store.uri}: it holds {', '.join(runs) or 'no runs'}") from error
    except ValidationError as error:
        raise DataError(
            f"{store.uri}: {manifest_key(run)} is damaged ({first_problem(error)}): start the run again"
        ) from error
    if manifest.request.run != run:
        raise DataError(
            f"{store.uri}: {manifest_key(run)} is that of run {manifest.request.run!r}: start the run again"
        )
    return manifest, etag


class ManifestFile:
    """The manifest of a run that this controller holds the lease of."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        """Write the first state over an earlier controller's, whose attempts are kept.

        Raises LeaseLost if a later controller has written it.
        """
        self.manifest = manifest
        self._store, self._key = store, manifest_key(manifest.request.run)
        self._replaced: Request | None = None  # what the run was asked for before
        earlier, etag = _earlier(store, self._key)
        if earlier is not None and earlier.epoch > manifest.epoch:
            raise LeaseLost(f"run {manifest.request.run!r} was taken over by another controller: this one ends")
        if earlier is not None:
            manifest.attempts, self._replaced = earlier.attempts, earlier.request
        self._etag = self._put(if_match=etag) if etag else self._put(if_none_match=True)

    def notice(self) -> str | None:
        """What to say of a run of that name whose place this one takes, if it was of other data or weights."""
        before, request = self._replaced, self.manifest.request
        if before is None or before.made_of == request.made_of:
            return None
        return (
            f"run {request.run} was of other data or weights (source {before.source}): its status and page are this "
            "one's from now on, outputs stay; give another --run to keep both"
        )

    def save(self) -> None:
        """Replace; raises Conflict if another controller wrote since."""
        self._etag = self._put(if_match=self._etag)

    def end(self, state: State, reason: str) -> None:
        """Write how the run stands, or ended."""
        self.manifest = self.manifest.standing(state, reason)
        self.save()

    def _put(self, **condition: Any) -> str:
        return self._store.put(self._key, self.manifest.model_dump_json(indent=1).encode(), **condition)


def _earlier(store: Store, key: str) -> tuple[Manifest | None, str | None]:
    """Manifest and entity tag of an earlier controller; a damaged manifest is written anew."""
    try:
        data, etag = store.get(key)
    except NotFound:
        return None, None
    try:
        return Manifest.model_validate_json(data), etag
    except ValidationError:
        return None, etag
