"""Whether this machine has what runs need."""

import argparse

from isc_jobs.spec.errors import ExitCode
from isc_jobs.spec.plain import plain


def doctor(arguments: argparse.Namespace) -> int:
    """Try everything, a line each; exit code 64 if something is missing."""
    from isc_jobs.commands.examination import examine

    found = []
    for finding in examine(arguments):
        found.append(finding)
        print(f"{finding.state:<8} {plain(finding.sentence)}", flush=True)
    missing = sum(finding.state == "MISSING" for finding in found)
    print(f"{missing} of {len(found)} things are missing" if missing else "runs can start here")
    return int(ExitCode.USAGE if missing else ExitCode.OK)
