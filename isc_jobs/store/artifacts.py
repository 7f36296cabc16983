"""Stage outputs in the store: files under ``artifacts/<stage>/<key>/``, committed by commit.json, written last."""

import fcntl
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, ValidationError

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.settings import Frozen
from isc_jobs.spec.stage import InputRef, first_problem
from isc_jobs.store.directory import DirectoryStore
from isc_jobs.store.port import Conflict, NotFound, Store, check_key


def _plain_name(name: str) -> str:
    """The name of a file within an output, which no other folder is reached by; raises ValueError."""
    try:
        return check_key(name)
    except UsageError as error:
        raise ValueError(f"{name[:100]!r} is no name of a file within an output") from error


class FileEntry(Frozen):
    """One file of an output: name relative to it, bytes, SHA-256 (hex)."""

    name: Annotated[str, AfterValidator(_plain_name)]
    size: int
    sha256: str


def _each_once(entries: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError("a file is named twice")
    return entries


FileEntries = Annotated[tuple[FileEntry, ...], AfterValidator(_each_once)]


class Commit(Frozen):
    """What makes an output finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    key: str
    run: str
    attempt: int
    files: FileEntries
    summary: dict[str, Any]  # small values for people
    provenance: dict[str, str]  # versions
    seconds: float
    created: str  # ISO 8601, UTC


def prefix(ref: InputRef) -> str:
    """Where the output's objects are."""
    return f"artifacts/{ref.stage}/{ref.key}"


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_commit(store: Store, ref: InputRef) -> Commit | None:
    """The output's commit, None if it is not finished; raises DataError if the commit is damaged."""
    key = f"{prefix(ref)}/commit.json"
    try:
        commit = Commit.model_validate_json(store.get(key)[0])
    except NotFound:
        return None
    except ValidationError as error:
        raise DataError(
            f"{store.uri}: {key} is damaged ({first_problem(error)}): delete it to run the stage again"
        ) from error
    if (commit.stage, commit.key) != (ref.stage, ref.key):
        raise DataError(
            f"{store.uri}: {key} is that of another output, {prefix(InputRef(stage=commit.stage, key=commit.key))!r}: "
            "delete it to run the stage again"
        )
    return commit


def verify_commit(store: Store, commit: Commit) -> bool:
    """Whether every listed object exists with its size."""
    where = prefix(InputRef(stage=commit.stage, key=commit.key))
    found = {info.key: info.size for info in store.list(f"{where}/")}
    return all(found.get(f"{where}/{entry.name}") == entry.size for entry in commit.files)


def uncommit(store: Store, ref: InputRef) -> None:
    """Forget that an output was finished; its files stay until they are written again."""
    store.delete(f"{prefix(ref)}/commit.json")


def upload_file(store: Store, where: str, name: str, path: Path) -> FileEntry:
    """Upload a file as ``where/name``; what to list of it."""
    entry = FileEntry(name=name, size=path.stat().st_size, sha256=file_sha256(path))
    store.upload(f"{where}/{name}", path)
    return entry


def publish(
    store: Store, ref: InputRef, folder: Path, *, run: str, attempt: int,
    summary: dict[str, Any], provenance: dict[str, str], seconds: float, uploaded: Sequence[FileEntry] = (),
) -> Commit:  # fmt: skip
    """Upload all files under ``folder``, then commit.json with them and those ``uploaded`` to the output before.

    If another attempt was first, its commit is returned.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    entries = [*uploaded, *(upload_file(store, prefix(ref), name, path) for name, path in paths.items())]
    files = tuple(sorted(entries, key=lambda entry: entry.name))
    commit = Commit(
        stage=ref.stage, key=ref.key, run=run, attempt=attempt, files=files, summary=summary,
        provenance=provenance, seconds=round(seconds, 3), created=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )  # fmt: skip
    try:
        store.put(f"{prefix(ref)}/commit.json", commit.model_dump_json(indent=1).encode(), if_none_match=True)
    except Conflict:
        first = read_commit(store, ref)
        if first is None:
            raise
        return first
    return commit


class Artifact:
    """A committed output to read from; files come verified, in place or copied to a cache."""

    def __init__(self, store: Store, commit: Commit, cache: Path, notes: Path | None) -> None:
        """Use ``open_artifact``."""
        self.commit = commit
        self._store = store
        self._prefix = prefix(InputRef(stage=commit.stage, key=commit.key))
        self._cache = cache / commit.stage / commit.key
        self._notes = notes / commit.stage / commit.key if notes is not None else None
        self._entries = {entry.name: entry for entry in commit.files}
        self._verified: dict[str, Path] = {}

    def names(self) -> list[str]:
        """All files' names, sorted."""
        return sorted(self._entries)

    def path(self, name: str) -> Path:
        """A local file with the committed bytes; raises DataError if absent or damaged."""
        if name not in self._verified:
            if name not in self._entries:
                raise DataError(f"output of {self.commit.stage} holds no {name}: it holds {', '.join(self.names())}")
            entry = self._entries[name]
            if self._notes is None:
                self._verified[name] = self._fetch(entry)
            else:
                self._verified[name] = self._fetch_once(entry, self._notes / f"{name}.verified")
        return self._verified[name]

    def is_noted(self, name: str) -> bool:
        """Whether some process of this machine has verified the file."""
        note = None if self._notes is None else self._notes / f"{name}.verified"
        return note is not None and note.exists() and note.stat().st_size > 0

    def _fetch_once(self, entry: FileEntry, note: Path) -> Path:
        """Of the processes that share the notes, the first fetches and verifies the file, and the others wait."""
        note.parent.mkdir(parents=True, exist_ok=True)
        with note.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process
            file.seek(0)
            path = self._local(entry)
            if not path.is_file() or file.read() != _state_of(path):
                path = self._fetch(entry)
                file.truncate(0)
                file.write(_state_of(path))
        return path

    def _local(self, entry: FileEntry) -> Path:
        """Where the file is to be."""
        if isinstance(self._store, DirectoryStore):
            return self._store.path(f"{self._prefix}/{entry.name}")
        return self._cache / entry.name

    def _fetch(self, entry: FileEntry) -> Path:
        key, path = f"{self._prefix}/{entry.name}", self._local(entry)
        if isinstance(self._store, DirectoryStore):
            if not path.is_file():
                raise NotFound(f"{self._store.uri}: {key} is listed in its commit and missing: delete the commit")
        elif path.is_file() and path.stat().st_size == entry.size and file_sha256(path) == entry.sha256:
            return path
        else:
            self._store.download(key, path)
        found = file_sha256(path)
        if found != entry.sha256:
            raise DataError(
                f"{self._store.uri}: {key} is damaged: SHA-256 is {found[:12]}…, committed was {entry.sha256[:12]}…; "
                f"delete {self._prefix}/commit.json to make it again"
            )
        return path


def open_artifact(store: Store, ref: InputRef, cache: Path, notes: Path | None = None) -> Artifact:
    """The committed output; raises DataError if there is none.

    Processes that share a folder of ``notes`` fetch and verify each file once for all; else each does for itself.
    """
    commit = read_commit(store, ref)
    if commit is None:
        raise DataError(f"{store.uri}: {ref.stage} has no finished output {ref.key[:12]}: run that stage first")
    return Artifact(store, commit, cache, notes)


def _state_of(path: Path) -> str:
    """What changes when a file is written anew."""
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
