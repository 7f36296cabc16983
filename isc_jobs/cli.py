"""isc-jobs: the command line. Heavy imports wait until a command needs them."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

from isc_jobs import __version__, commands, options
from isc_jobs.spec.errors import ExitCode, IscJobsError, of_file
from isc_jobs.spec.plain import expected_one_of, plain

_EXAMPLES = """examples:
  isc-jobs dataset make ~/Pictures --out bench
  isc-jobs run-all --profile demo --source bench --store runs
  isc-jobs status demo --store runs
exit codes: 0 done, 64 usage, 65 data, 70 internal, 75 try later, 130 interrupted, 143 terminated"""


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Every command refuses what it does not know itself, and so points to its own help."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    @override
    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Of a word that is none of a few, the likeliest is named."""
        if action.choices is not None and value not in action.choices:
            known = map(str, action.choices)
            raise argparse.ArgumentError(action, f"unknown {value!r}: {expected_one_of(str(value), known)}")

    def error(self, message: str) -> NoReturn:
        """A wrong command line is one sentence and exit code 64."""
        print(f"{self.prog}: {plain(message)}; see {self.prog} --help", file=sys.stderr)
        sys.exit(int(ExitCode.USAGE))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    parsed = build_parser().parse_args(arguments)
    try:
        return int(parsed.command(parsed))
    except IscJobsError as error:
        return _told(error)
    except KeyboardInterrupt:
        print("isc-jobs: interrupted", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        return int(ExitCode.OK)
    except OSError as error:  # of a file or folder that the user named
        explained = of_file(error)
        if explained is None:
            raise
        return _told(explained)


def _told(error: IscJobsError) -> int:
    print(f"isc-jobs: {plain(str(error))}", file=sys.stderr)
    return int(error.exit_code)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = _Parser(
        prog="isc-jobs", description="Image copy detection as a resumable batch pipeline.", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"isc-jobs {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    options.add_run_commands(subparsers)
    options.add_dataset_commands(subparsers)
    evaluate = subparsers.add_parser("evaluate", help="uAP and recall at precision 90 of a submission")
    evaluate.add_argument("submission", type=Path, help="descriptors .h5 or matches .csv")
    evaluate.add_argument("ground_truth", type=Path, help="query_id,reference_id")
    evaluate.add_argument("--json", action="store_true", help="for programs")
    evaluate.set_defaults(command=commands.evaluate)
    options.add_weights_commands(subparsers)
    options.add_match(subparsers)
    options.add_index(subparsers)
    options.add_estimate(subparsers)
    doctor = subparsers.add_parser("doctor", help="whether this machine has what runs need, and what to do if not")
    doctor.add_argument("--namespace", default="isc-jobs", metavar="NAME", help="of the cluster; default isc-jobs")
    options.add_store(doctor)
    doctor.set_defaults(command=commands.doctor)
    completion = subparsers.add_parser("completion", help="a script that completes commands in your shell")
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    completion.set_defaults(command=commands.completion, parser=parser)
    commands.add_examples(parser)
    return parser
