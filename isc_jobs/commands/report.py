"""The page of a run: where it is, and in a browser."""

import argparse
import sys

from isc_jobs.commands.runs import open_named_store
from isc_jobs.spec.errors import ExitCode, UsageError

_VALID_S = 3600  # of a link into a bucket


def report(arguments: argparse.Namespace) -> int:
    """Print a link to the run's page, or open it."""
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.controller.status import report_key

    store = open_named_store(arguments)
    key = report_key(arguments.run)
    if store.stat(key) is None:
        state = read_manifest(store, arguments.run)[0].state
        raise UsageError(f"run {arguments.run} ({state}) has no page: an earlier version ran it; run it again")
    link = store.link(key, "text/html", _VALID_S)
    print(link)
    if arguments.open:
        import webbrowser

        if not webbrowser.open(link):
            print("isc-jobs: no browser was found here: open the link above yourself", file=sys.stderr)
    return int(ExitCode.OK)
