"""isc-jobs: the command line. Heavy imports wait until a command needs them."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from isc_jobs import __version__, commands
from isc_jobs.spec.errors import ExitCode, IscJobsError
from isc_jobs.spec.plain import plain

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
        print(f"isc-jobs: {plain(str(error))}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("isc-jobs: interrupted", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        return int(ExitCode.OK)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = _Parser(
        prog="isc-jobs", description="Image copy detection as a resumable batch pipeline.", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"isc-jobs {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for name, command, text in (
        ("run-all", commands.run_all, "run the pipeline"),
        ("render", commands.render, "print what a run creates in a cluster"),
        ("diff", commands.diff, "show which stages changed settings run again"),
        ("check", commands.check, "see whether a deployed cluster has what runs need"),
    ):  # fmt: skip
        sub = subparsers.add_parser(name, help=text)
        _add_request(sub)
        if name == "run-all":
            sub.add_argument("--dry-run", action="store_true", help="print the plan")
            sub.add_argument("--detach", action="store_true", help="let the cluster run the controller, and return")
            _add_while(sub)
        sub.set_defaults(command=command)
    for name, command, text in (
        ("status", commands.status, "what each stage of a run is doing"),
        ("logs", commands.logs, "the log of an attempt"),
        ("report", commands.report, "a link to the page of a run, also while it goes on"),
        ("cancel", commands.cancel, "end a run; what is finished stays"),
        ("resume", commands.resume, "go on with a run"),
    ):  # fmt: skip
        sub = subparsers.add_parser(name, help=text)
        sub.add_argument("run", metavar="RUN", help="name of the run")
        if name == "status":
            shown = sub.add_mutually_exclusive_group()
            shown.add_argument("--json", action="store_true", help="for programs")
            shown.add_argument("--watch", action="store_true", help="until the run has ended")
        if name == "logs":
            sub.add_argument("stage", metavar="STAGE", help="as status lists them, like train-v83")
            sub.add_argument("--attempt", type=int, help="default: the latest")
            sub.add_argument("--rank", type=int, help="process of a training; default 0, with --follow all")
            sub.add_argument("--follow", action="store_true", help="go on with what comes, also of later attempts")
        if name == "report":
            sub.add_argument("--open", action="store_true", help="show it in a browser")
        if name == "resume":
            sub.add_argument("--unattended", action="store_true", help="do nothing if the run has ended")
            _add_while(sub)
        _add_store(sub)
        sub.set_defaults(command=command)
    dataset = subparsers.add_parser("dataset", help="make data sets").add_subparsers(required=True, metavar="ACTION")
    make = dataset.add_parser("make", help="a copy-detection benchmark from any folder of pictures")
    make.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of pictures, with all folders below it")
    make.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the data set")
    make.add_argument("--seed", type=int, default=0, help="of the split and the edits; default 0")
    make.add_argument("--edits", choices=["standard", "hard"], default="standard", help="of the queries")
    make.set_defaults(command=commands.dataset_make)
    evaluate = subparsers.add_parser("evaluate", help="uAP and recall at precision 90 of a submission")
    evaluate.add_argument("submission", type=Path, help="descriptors .h5 or matches .csv")
    evaluate.add_argument("ground_truth", type=Path, help="query_id,reference_id")
    evaluate.add_argument("--json", action="store_true", help="for programs")
    evaluate.set_defaults(command=commands.evaluate)
    _add_weights_commands(subparsers)
    _add_match(subparsers)
    _add_estimate(subparsers)
    doctor = subparsers.add_parser("doctor", help="whether this machine has what runs need, and what to do if not")
    doctor.add_argument("--namespace", default="isc-jobs", metavar="NAME", help="of the cluster; default isc-jobs")
    _add_store(doctor)
    doctor.set_defaults(command=commands.doctor)
    completion = subparsers.add_parser("completion", help="a script that completes commands in your shell")
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    completion.set_defaults(command=commands.completion, parser=parser)
    commands.add_examples(parser)
    return parser


def _add_weights_commands(subparsers: "argparse._SubParsersAction[_Parser]") -> None:
    checkpoint = subparsers.add_parser("checkpoint", help="look into weights files, change their layout")
    actions = checkpoint.add_subparsers(required=True, metavar="ACTION")
    inspect = actions.add_parser("inspect", help="what a weights file holds, and whether it loads")
    inspect.add_argument("file", type=Path, metavar="FILE", help=".pth.tar, .pth, .pt or .safetensors")
    inspect.add_argument("--json", action="store_true", help="for programs")
    inspect.set_defaults(command=commands.checkpoint_inspect)
    convert = actions.add_parser("convert", help="the same weights in another layout")
    convert.add_argument("file", type=Path, metavar="IN", help=".pth.tar, .pth, .pt or .safetensors")
    convert.add_argument(
        "out", type=Path, metavar="OUT",
        help=".pth.tar: the original's layout; .pth, .pt: names and tensors; .safetensors",
    )  # fmt: skip
    convert.set_defaults(command=commands.checkpoint_convert)
    export = subparsers.add_parser("export", help="the descriptor model as ONNX")
    export.add_argument("--weights", type=Path, required=True, metavar="FILE", help="trained weights")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="as model.onnx")
    export.set_defaults(command=commands.export)
    _add_input_size(export)
    for parser in (inspect, convert, export):
        _add_arch(parser)


def _add_match(subparsers: "argparse._SubParsersAction[_Parser]") -> None:
    match = subparsers.add_parser("match", help="find the copies of pictures among others, in any folders")
    for name, metavar, text in (
        ("--weights", "FILE", "trained weights"),
        ("--references", "DIR", "pictures that may have been copied, with all folders below"),
        ("--queries", "DIR", "pictures that may be copies; the same folder finds duplicates"),
        ("--out", "FILE.csv", "query_id,reference_id,score,copy; beside it .json, .html and .bad.csv"),
    ):
        match.add_argument(name, type=Path, required=True, metavar=metavar, help=text)
    for name, metavar, text in (
        ("--ground-truth", "CSV", "query_id,reference_id: threshold and curve from these instead of an estimate"),
        ("--negatives", "DIR", "other pictures, like neither: negative embedding subtraction"),
        ("--work", "DIR", "keeps descriptors for the next time; default: OUT without .csv, and .work"),
    ):
        match.add_argument(name, type=Path, metavar=metavar, help=text)
    match.add_argument("--top-k", type=_positive, metavar="K", help="references for each query; default 1")
    match.add_argument("--threshold", type=_finite, metavar="T", help="least score of a copy; default: estimated")
    match.add_argument("--batch", type=_positive, metavar="N", help="pictures described at once")
    match.add_argument("--workers", type=_natural, metavar="N", help="processes that decode")
    _add_input_size(match)
    _add_arch(match)
    match.set_defaults(command=commands.match)


def _add_estimate(subparsers: "argparse._SubParsersAction[_Parser]") -> None:
    estimate = subparsers.add_parser("estimate", help="hours, GPUs, storage and cost of a run, without running it")
    _add_profile(estimate)
    estimate.add_argument("--gpu", choices=["a100", "h100", "v100"], default="a100", help="default a100")
    for name, kind, text in (
        ("--nodes", _positive, "that trainings and extraction use; default: the settings' pods"),
        ("--gpus-per-node", _natural, "default: the settings'; 0: on processors"),
        ("--images", _positive, "training images; default DISC21's 1,000,000"),
        ("--references", _positive, "default DISC21's 1,000,000"),
        ("--queries", _positive, "of each phase; default DISC21's 50,000"),
        ("--pairs", _positive, "of the ground truth of phase 1; default DISC21's 4,991"),
        ("--picture-kb", _positive, "of one picture on average; default 167"),
    ):
        estimate.add_argument(name, type=kind, metavar="N", help=text)
    for name, amount, default, text in (
        ("--cores-per-node", _speed, None, "default: the settings' cpu of a training's pod"),
        ("--store-gbit", _speed, 25.0, "Gbit/s of a node to the store; default 25"),
        ("--network-gbit", _speed, 100.0, "Gbit/s of a node to the others; default 100"),
        ("--disk-mb", _speed, 2000.0, "MB/s of a node's disk; default 2000"),
        ("--price", _amount, None, "of a GPU hour; default 0: the cost is that of storage and requests"),
        ("--core-price", _amount, None, "of a core hour, for stages without GPUs; default 0"),
        ("--storage-price", _amount, None, "of a GB and month; default 0.023"),
        ("--put-price", _amount, None, "of a thousand PUT or LIST requests; default 0.005"),
        ("--get-price", _amount, None, "of a thousand GET requests; default 0.0004"),
        ("--months", _amount, None, "for which outputs are kept; default: as long as the run"),
        (
            "--failures-per-node-day",
            _amount,
            0.0,
            "simulate runs whose nodes fail so often: goodput by checkpoint interval",
        ),
        ("--preemptions-per-node-day", _amount, 0.0, "the same with a warning, after which a checkpoint is written"),
    ):
        estimate.add_argument(name, type=amount, metavar="X", default=default, help=text)
    estimate.add_argument("--runs", type=_positive, default=20, metavar="N", help="simulated; default 20")
    estimate.add_argument("--seed", type=_natural, default=0, metavar="N", help="of the first of them; default 0")
    estimate.add_argument("--json", action="store_true", help="for programs")
    estimate.set_defaults(command=commands.estimate)


def _add_input_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input-size", type=_size, metavar="N", help="pixels a side; default: the weights', else 512")


def _add_arch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", metavar="NAME", help="timm backbone; default: the weights', else EfficientNetV2-M")


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not finite")
    return value


def _amount(text: str) -> float:
    value = _finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return value


def _speed(text: str) -> float:
    value = _amount(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r}: expected more than 0")
    return value


def _natural(text: str) -> int:
    return _whole(text, 0)


def _positive(text: str) -> int:
    return _whole(text, 1)


def _size(text: str) -> int:
    return _whole(text, 32)


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="isc21", metavar="demo|isc21|FILE.yaml", help="settings; default isc21")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change one setting, as trainings.v83.epochs=2",
    )


def _add_request(parser: argparse.ArgumentParser) -> None:
    _add_profile(parser)
    parser.add_argument("--source", metavar="URI", help="folder or s3://bucket/prefix with the pictures")
    parser.add_argument("--anonymous-source", action="store_true", help="sign no requests to the source")
    parser.add_argument(
        "--launcher",
        choices=["local", "kubernetes"],
        help="default: kubernetes without --source or with --detach, else local",
    )
    parser.add_argument("--run", metavar="NAME", help="default: the profile's name")
    parser.add_argument("--from", dest="first", metavar="STAGE", help="run nothing before this stage")
    parser.add_argument("--until", dest="last", metavar="STAGE", help="run this stage and what it needs")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="trained weights; default --from is extract")
    _add_store(parser)


def _add_while(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--on-end", metavar="COMMAND", help="a shell's command when the run ends; $ISC_JOBS_STATE: how")
    parser.add_argument("--metrics-port", type=_positive, metavar="N", help="answer Prometheus there meanwhile")


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", metavar="URI",
        help="folder or s3://bucket/prefix; default $ISC_JOBS_STORE, else isc-jobs-store here, else the cluster's",
    )  # fmt: skip
