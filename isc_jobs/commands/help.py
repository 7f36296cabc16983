"""What helps at the command line: examples below each command's options, and completion in shells."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from isc_jobs.spec.errors import ExitCode

EXAMPLES = {
    "run-all": (
        "isc-jobs run-all --profile demo --source my-benchmark --store my-store",
        "isc-jobs run-all --profile demo --source my-benchmark --set trainings.v83.epochs=2 --dry-run",
        "isc-jobs run-all --source s3://bucket/disc21 --store s3://bucket/runs --weights isc_ft_v107.pth.tar",
        "isc-jobs run-all --detach --run mine",
        "isc-jobs run-all --profile my.yaml --source s3://bucket/photos --on-end 'notify-send \"$ISC_JOBS_STATE\"'",
    ),
    "render": (
        "isc-jobs render --until train-v83",
        "isc-jobs render --source s3://bucket/disc21 --launcher kubernetes",
    ),
    "diff": ("isc-jobs diff --run mine --profile demo --source my-benchmark --set postprocess.beta=0.3",),
    "check": ("isc-jobs check --store s3://bucket/runs --source s3://bucket/disc21",),
    "status": ("isc-jobs status mine", "isc-jobs status mine --watch", "isc-jobs status mine --json"),
    "logs": (
        "isc-jobs logs mine train-v83 --follow",
        "isc-jobs logs mine train-v83 --attempt 1 --rank 3",
        "isc-jobs logs mine controller",
    ),
    "report": ("isc-jobs report mine --open", "isc-jobs report mine --store s3://bucket/runs"),
    "fetch": ("isc-jobs fetch mine train-v107 weights", "isc-jobs fetch mine postprocess . --store s3://bucket/runs"),
    "cancel": ("isc-jobs cancel mine --store my-store",),
    "resume": ("isc-jobs resume mine --store my-store",),
    "dataset make": ("isc-jobs dataset make ~/Pictures --out my-benchmark --edits hard",),
    "evaluate": ("isc-jobs evaluate submission.csv my-benchmark/ground_truth_phase2.csv --json",),
    "checkpoint inspect": ("isc-jobs checkpoint inspect checkpoint.pth.tar",),
    "checkpoint convert": ("isc-jobs checkpoint convert checkpoint.pth.tar weights.safetensors",),
    "export": ("isc-jobs export --weights checkpoint.pth.tar --out model.onnx",),
    "match": (
        "isc-jobs match --weights checkpoint.pth.tar --references originals --queries suspects --out found.csv",
        "isc-jobs match --weights checkpoint.pth.tar --references all --queries all --top-k 5 --out duplicates.csv",
    ),
    "index build": (
        "isc-jobs index build my-index --weights checkpoint.pth.tar --pictures ~/Pictures",
        "isc-jobs index build references --descriptors descriptors.h5 --weights checkpoint.pth.tar --kind ivfpq",
    ),
    "index add": ("isc-jobs index add my-index --pictures ~/Downloads",),
    "index query": (
        "isc-jobs index query my-index suspect.jpg --top-k 3",
        "isc-jobs index query my-index suspects --threshold -0.8 --html found.html",
    ),
    "estimate": (
        "isc-jobs estimate --profile isc21 --gpu a100 --nodes 2 --price 2.5",
        "isc-jobs estimate --gpu h100 --failures-per-node-day 0.1 --json",
    ),
    "doctor": ("isc-jobs doctor", "isc-jobs doctor --store s3://bucket/runs"),
    "completion": ('eval "$(isc-jobs completion bash)"', "isc-jobs completion zsh > ~/.zfunc/_isc-jobs"),
}


def add_examples(parser: argparse.ArgumentParser) -> None:
    """Put each command's examples below its options."""
    for name, command in commands_of(parser):
        if name in EXAMPLES:
            command.epilog = "\n".join(["examples:", *(f"  {example}" for example in EXAMPLES[name])])
            command.formatter_class = argparse.RawDescriptionHelpFormatter


def completion(arguments: argparse.Namespace) -> int:
    """Print a script by which a shell completes our commands, options and files."""
    import shtab

    parser: argparse.ArgumentParser = arguments.parser
    for _, command in commands_of(parser):
        for action in command._actions:  # noqa: SLF001 - as shtab itself does: argparse has no other way
            if action.type is Path:
                kind = shtab.DIRECTORY if action.metavar in {"DIR", "PHOTOS"} else shtab.FILE
                action.complete = kind  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=arguments.shell))
    return int(ExitCode.OK)


def commands_of(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """All commands by name, as ``dataset make``."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for word, command in action.choices.items():
                yield f"{name} {word}".strip(), command
                yield from commands_of(command, f"{name} {word}".strip())
