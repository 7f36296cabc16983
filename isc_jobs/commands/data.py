"""Commands that make a benchmark and score a submission."""

import argparse

from isc_jobs.spec.errors import ExitCode
from isc_jobs.spec.plain import plain


def dataset_make(arguments: argparse.Namespace) -> int:
    """Make a data set out of a folder of pictures."""
    from isc_jobs.datasets.make import make_dataset

    counts = make_dataset(arguments.photos, arguments.out, arguments.seed, arguments.edits)
    print(
        plain(f"{arguments.out}: ") + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    )
    return int(ExitCode.OK)


def evaluate(arguments: argparse.Namespace) -> int:
    """Score a submission."""
    import json

    from isc_jobs.retrieval.metrics import evaluate_files

    scores = evaluate_files(arguments.submission, arguments.ground_truth)
    values = {"average_precision": scores.uap, "recall_p90": scores.recall_at_p90}
    track = "matching" if arguments.submission.suffix == ".csv" else "descriptor"
    shown = f"{track} track\nuAP {scores.uap:.5f}\nR@P90 {scores.recall_at_p90:.5f}"
    print(json.dumps(values, indent=2) if arguments.json else shown)
    return int(ExitCode.OK)
