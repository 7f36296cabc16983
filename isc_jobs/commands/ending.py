"""The user's command at the end of a run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from isc_jobs.spec.errors import IscJobsError

if TYPE_CHECKING:
    from isc_jobs.store import Store


@contextmanager
def call_on_end(command: str | None, store: "Store", run: str) -> Iterator[None]:
    """Call a shell's command once the block has ended, however that was; it changes nothing of how the run ended.

    It finds the run in variables: ISC_JOBS_RUN, _STATE, _REASON, _REPORT (its page) and _STORE, each after ISC_JOBS.
    """
    try:
        yield
    finally:
        if command is not None:
            _call(command, store, run)


def _call(command: str, store: "Store", run: str) -> None:
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.controller.status import report_key

    told = {"RUN": run, "STORE": store.uri, "REPORT": f"{store.uri}/{report_key(run)}"}
    try:
        manifest, _ = read_manifest(store, run)
        told |= {"STATE": manifest.state, "REASON": manifest.reason}
    except IscJobsError as error:  # it never began, or the store is away
        told |= {"STATE": "unknown", "REASON": str(error)}
    variables = {f"ISC_JOBS_{name}": value.replace("\0", "") for name, value in told.items()}
    # The command is the caller's own, of his command line; what others name comes in as variables.
    code = subprocess.run(command, shell=True, check=False, env=os.environ | variables).returncode  # noqa: S602
    if code:
        print(f"isc-jobs: the command of --on-end ended with exit code {code}", file=sys.stderr, flush=True)
