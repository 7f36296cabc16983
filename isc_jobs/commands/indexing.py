"""The commands of an index of descriptors on disk."""

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from isc_jobs.commands.matching import terminate
from isc_jobs.spec.errors import ExitCode, UsageError
from isc_jobs.spec.plain import plain

if TYPE_CHECKING:
    from isc_jobs.matching.indexing import Describing


def index_build(arguments: argparse.Namespace) -> int:
    """Make an index of a folder's pictures, or of descriptors that are there."""
    from isc_jobs.matching.indexing import build_from_descriptors, build_index

    if (arguments.pictures is None) == (arguments.descriptors is None):
        raise UsageError("give --pictures and --weights, or --descriptors: one of the two is what the index is made of")
    if arguments.pictures is not None and arguments.weights is None:
        raise UsageError("--pictures are described with --weights: give a file of trained weights")
    if arguments.pictures is None:
        lines = build_from_descriptors(
            arguments.index, arguments.kind, arguments.descriptors, arguments.set, arguments.weights
        )
    else:
        lines = build_index(arguments.index, arguments.kind, arguments.weights, arguments.pictures, _how(arguments))
    return _print(lines)


def index_add(arguments: argparse.Namespace) -> int:
    """Add a folder's pictures."""
    from isc_jobs.matching.indexing import add_pictures

    return _print(add_pictures(arguments.index, arguments.pictures, _how(arguments)))


def index_query(arguments: argparse.Namespace) -> int:
    """Print what is near, as a table or JSON, and write it as a page."""
    from dataclasses import asdict

    from isc_jobs.matching.indexing import answer_page, query

    with _stopped_by_sigterm():
        found = query(arguments.index, arguments.pictures, arguments.top_k, arguments.threshold, _how(arguments))
    for name, reason in found.bad:
        print(f"isc-jobs: left out: {plain(f'{name}: {reason}')}", file=sys.stderr)
    if arguments.html is not None:
        arguments.html.write_text(answer_page(found), "utf-8")
    if arguments.json:
        print(json.dumps([asdict(row) for row in found.rows], indent=1))
    else:
        for row in found.rows:
            print(plain(f"{row.query}  {row.rank}  {round(row.score, 6) + 0.0:.6f}  {row.name}"))
    return int(ExitCode.OK)


def _how(arguments: argparse.Namespace) -> "Describing":
    from isc_jobs.matching.indexing import Describing

    given = {name: getattr(arguments, name, None) for name in ("arch", "input_size", "batch", "workers")}
    return Describing(**given)


def _print(lines: Iterator[str]) -> int:
    with _stopped_by_sigterm():
        for line in lines:
            print(plain(line), flush=True)
    return int(ExitCode.OK)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
