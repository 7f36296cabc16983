"""The command that copies what a stage made out of the store."""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from isc_jobs.commands.runs import open_named_store
from isc_jobs.spec.errors import ExitCode, TemporaryError, UsageError
from isc_jobs.spec.plain import expected_one_of, plain

if TYPE_CHECKING:
    from isc_jobs.store import Store


def fetch(arguments: argparse.Namespace) -> int:
    """Copy a stage's files to a folder, as they were committed."""
    for path in _fetched(open_named_store(arguments), arguments.run, arguments.stage, arguments.folder):
        print(plain(f"{path}  {path.stat().st_size:,} bytes"), flush=True)
    return int(ExitCode.OK)


def _fetched(store: "Store", run: str, stage: str, folder: Path) -> Iterator[Path]:
    """Each file once it is there and verified; raises UsageError rather than replace what is another."""
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.controller.status import stage_status
    from isc_jobs.spec.stage import InputRef
    from isc_jobs.store.artifacts import file_sha256, open_artifact

    manifest, _ = read_manifest(store, run)
    stages = manifest.stages
    if stage not in stages:
        raise UsageError(f"run {run} has no stage {stage!r}: {expected_one_of(stage, stages)}")
    state = stage_status(store, manifest, stage, stages[stage])["state"]
    if state in {"running", "waiting"}:
        raise TemporaryError(f"{stage} of run {run} is {state}: fetch it once `isc-jobs status {run}` says finished")
    if state != "finished":
        raise UsageError(f"{stage} of run {run} has made nothing: it is {state}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".isc-jobs-", dir=folder) as cache:
        output = open_artifact(store, InputRef(stage=stage, key=stages[stage]), Path(cache))
        digests = {entry.name: entry.sha256 for entry in output.commit.files}
        there = [name for name in output.names() if (folder / name).exists()]
        for name in there:
            if file_sha256(folder / name) != digests[name]:
                raise UsageError(f"{folder / name} is there and is another: choose a folder without it")
        for name in output.names():
            if name not in there:
                _place(output.path(name), folder / name, Path(cache))
            yield folder / name


def _place(path: Path, target: Path, cache: Path) -> None:
    """Whole or not at all."""
    if not path.is_relative_to(cache):  # in a store that is a folder
        path = Path(shutil.copyfile(path, cache / "copy"))
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
