"""Work in named pieces that the parts of an attempt share; a finished piece outlives its attempt.

A piece's files go to the store first, its marker ``checkpoints/<key>/<name>.json`` last. What is made of a piece
depends on nothing but the piece, so the merge of all is the same however many parts there were.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from isc_jobs.spec.errors import DataError
from isc_jobs.spec.settings import Frozen
from isc_jobs.spec.stage import first_problem
from isc_jobs.stages.runner import Context
from isc_jobs.store.artifacts import FileEntries, FileEntry, file_sha256, prefix, upload_file

_READERS = 16  # of markers, which are many and small


class Piece(Frozen):
    """The marker of a finished piece."""

    attempt: str  # that made it, or last found it whole
    files: FileEntries
    result: dict[str, Any]  # what the merge needs to know beside the files


class Pieces:
    """All pieces of a stage in their order; part i of N makes those at i, i + N, i + 2N and so on."""

    def __init__(self, ctx: Context, names: Sequence[str], *, final: bool) -> None:
        """``final``: the files are outputs as they are. The store keeps them in their place, this machine not at all.

        Otherwise they are for the merge alone, and in the store beside their markers.
        """
        self.mine = frozenset(names[ctx.part :: ctx.parts])
        self._ctx, self._names, self._final = ctx, names, final
        self._place = prefix(ctx.ref) if final else f"checkpoints/{ctx.spec.key}"
        self._attempt = f"{ctx.spec.run}/{ctx.spec.attempt}"
        self._earlier = self._kept()
        self._whole: dict[str, Piece] = {}  # made or verified by this process
        self._local: set[str] = set()  # their files that are on this machine

    def path(self, file: str) -> Path:
        """Where the local file of a piece is, or is to be made."""
        path = self._ctx.work / "pieces" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def recall(self, name: str) -> Piece | None:
        """The piece as an earlier attempt kept it, verified; None if it is not there, or damaged, which is said."""
        if name not in self._earlier:
            return None
        try:
            piece = self._read(name)
            for entry in piece.files:
                self._fetch(entry)
        except DataError as error:
            self._ctx.log(f"{name} of an earlier attempt is damaged and made anew: {error}")
            return None
        return self._settle(name, piece)

    def keep(self, name: str, files: Iterable[str], result: dict[str, Any]) -> Piece:
        """Bring a finished piece into the store: its files, made at their ``path``, then its marker."""
        entries = tuple(upload_file(self._ctx.store, self._place, file, self.path(file)) for file in files)
        self._local |= {entry.name for entry in entries}
        return self._settle(name, Piece(attempt="", files=entries, result=result))

    def all(self) -> list[Piece] | None:
        """All pieces in order, if each was made or verified by a part of this attempt; else None, which is said."""
        whole = self._whole | self._of_others()
        missing = len(self._names) - len(whole)
        if missing:
            part = f"part {self._ctx.part} of {self._ctx.parts}"
            self._ctx.log(f"{part} is done, {missing} pieces are still being made by others")
            return None
        return [whole[name] for name in self._names]

    def fetch(self, piece: Piece) -> list[Path]:
        """Local files of a piece, verified; those of other parts come from the store. Raises DataError if damaged."""
        for entry in piece.files:
            if entry.name not in self._local:
                self._fetch(entry)
        return [self.path(entry.name) for entry in piece.files]

    def _of_others(self) -> dict[str, Piece]:
        names = [name for name in self._names if name not in self._whole]
        if not names:
            return {}
        kept = self._kept()
        ready = [name for name in names if name in kept]
        renewed = [kept[name] != self._earlier.get(name) for name in ready]
        with ThreadPoolExecutor(_READERS) as pool:
            pieces = dict(zip(ready, pool.map(self._read_whole, ready, renewed), strict=True))
        return {name: piece for name, piece in pieces.items() if piece is not None}

    def _read_whole(self, name: str, renewed: bool) -> Piece | None:
        """None as long as nobody has made or verified it since this attempt began, be it a run that shares the key."""
        try:
            piece = self._read(name)
        except DataError:
            return None
        return piece if renewed or piece.attempt == self._attempt else None

    def _read(self, name: str) -> Piece:
        """The marker; raises NotFound or DataError."""
        key = self._marker(name)
        try:
            return Piece.model_validate_json(self._ctx.store.get(key)[0])
        except ValidationError as error:
            raise DataError(f"{self._ctx.store.uri}: {key} is no marker: {first_problem(error)}") from error

    def _fetch(self, entry: FileEntry) -> None:
        key, path = f"{self._place}/{entry.name}", self.path(entry.name)
        self._ctx.store.download(key, path)
        found = file_sha256(path)
        if found != entry.sha256:
            raise DataError(f"{self._ctx.store.uri}: {key}: SHA-256 is {found[:12]}…, kept was {entry.sha256[:12]}…")
        self._local.add(entry.name)

    def _settle(self, name: str, piece: Piece) -> Piece:
        """Mark the piece as whole in this attempt."""
        if piece.attempt != self._attempt:
            piece = Piece(attempt=self._attempt, files=piece.files, result=piece.result)
            self._ctx.store.put(self._marker(name), piece.model_dump_json(indent=1).encode())
        if self._final:
            for entry in piece.files:
                self.path(entry.name).unlink()
                self._local.discard(entry.name)
        self._whole[name] = piece
        return piece

    def _kept(self) -> dict[str, str]:
        """Entity tags of all markers in the store, by name."""
        where = f"checkpoints/{self._ctx.spec.key}/"
        infos = (info for info in self._ctx.store.list(where) if info.key.endswith(".json"))
        return {info.key.removeprefix(where).removesuffix(".json"): info.etag for info in infos}

    def _marker(self, name: str) -> str:
        return f"checkpoints/{self._ctx.spec.key}/{name}.json"
