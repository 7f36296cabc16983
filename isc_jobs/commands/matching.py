"""The command that finds copies in any folders."""

import argparse
import signal
from types import FrameType
from typing import NoReturn

from isc_jobs.spec.errors import ExitCode, Terminated
from isc_jobs.spec.plain import plain


def match(arguments: argparse.Namespace) -> int:
    """Find copies, write them and what they look like."""
    from isc_jobs.matching.match import Request, find_copies

    request = Request(
        weights=arguments.weights, references=arguments.references, queries=arguments.queries, out=arguments.out,
        ground_truth=arguments.ground_truth, negatives=arguments.negatives, work=arguments.work,
        top_k=arguments.top_k, threshold=arguments.threshold, input_size=arguments.input_size, arch=arguments.arch,
        batch=arguments.batch, workers=arguments.workers,
    )  # fmt: skip
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        for line in find_copies(request):
            print(plain(line))
    finally:
        signal.signal(signal.SIGTERM, before)
    return int(ExitCode.OK)


def terminate(_signum: int, _frame: FrameType | None) -> NoReturn:
    """Of SIGTERM: raises Terminated."""
    raise Terminated("terminated; what is described is kept, run again")
