"""What commands take: their options."""

import argparse
from pathlib import Path
from typing import Any

from isc_jobs import commands
from isc_jobs.commands import values


def add_run_commands(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """What starts runs, shows them and ends them."""
    for name, command, text in (
        ("run-all", commands.run_all, "run the pipeline"),
        ("render", commands.render, "print what a run creates in a cluster"),
        ("diff", commands.diff, "show which stages changed settings run again"),
        ("check", commands.check, "see whether a deployed cluster has what runs need"),
    ):  # fmt: skip
        sub = subparsers.add_parser(name, help=text)
        add_request(sub)
        if name == "run-all":
            sub.add_argument("--dry-run", action="store_true", help="print the plan")
            sub.add_argument("--detach", action="store_true", help="let the cluster run the controller, and return")
            add_while(sub)
        sub.set_defaults(command=command)
    for name, command, text in (
        ("status", commands.status, "what each stage of a run is doing"),
        ("logs", commands.logs, "the log of an attempt"),
        ("report", commands.report, "a link to the page of a run, also while it goes on"),
        ("fetch", commands.fetch, "copy what a stage made out of the store, as weights and descriptors"),
        ("cancel", commands.cancel, "end a run; what is finished stays"),
        ("resume", commands.resume, "go on with a run"),
    ):  # fmt: skip
        sub = subparsers.add_parser(name, help=text)
        sub.add_argument("run", metavar="RUN", help="name of the run")
        if name == "status":
            shown = sub.add_mutually_exclusive_group()
            shown.add_argument("--json", action="store_true", help="for programs")
            shown.add_argument("--watch", action="store_true", help="until the run has ended")
        if name in {"logs", "fetch"}:
            sub.add_argument("stage", metavar="STAGE", help="as status lists them, like train-v83")
        if name == "fetch":
            sub.add_argument("folder", type=Path, metavar="DIR", help="made if it is not there; no file is replaced")
        if name == "logs":
            sub.add_argument("--attempt", type=int, help="default: the latest")
            sub.add_argument("--rank", type=int, help="process of a training; default 0, with --follow all")
            sub.add_argument("--follow", action="store_true", help="go on with what comes, also of later attempts")
        if name == "report":
            sub.add_argument("--open", action="store_true", help="show it in a browser")
        if name == "resume":
            sub.add_argument("--unattended", action="store_true", help="do nothing if the run has ended")
            add_while(sub)
        add_store(sub)
        sub.set_defaults(command=command)


def add_dataset_commands(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """What makes data sets."""
    dataset = subparsers.add_parser("dataset", help="make data sets").add_subparsers(required=True, metavar="ACTION")
    make = dataset.add_parser("make", help="a copy-detection benchmark from any folder of pictures")
    make.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of pictures, with all folders below it")
    make.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the data set")
    make.add_argument("--seed", type=int, default=0, help="of the split and the edits; default 0")
    make.add_argument("--edits", choices=["standard", "hard"], default="standard", help="of the queries")
    make.set_defaults(command=commands.dataset_make)


def add_weights_commands(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """What looks into weights files and changes their layout."""
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


def add_match(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Copies among folders."""
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
    match.add_argument("--top-k", type=values.positive, metavar="K", help="references for each query; default 1")
    match.add_argument("--threshold", type=values.score, metavar="T", help="least score of a copy; default: estimated")
    _add_describing(match)
    _add_input_size(match)
    _add_arch(match)
    match.set_defaults(command=commands.match)


def add_index(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Indexes on disk."""
    actions = subparsers.add_parser("index", help="descriptors of many pictures on disk, and what is near others")
    actions = actions.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="make an index of a folder's pictures, or of descriptors")
    add = actions.add_parser("add", help="add a folder's pictures")
    query = actions.add_parser("query", help="what of the index is near these pictures")
    for parser in (build, add, query):
        parser.add_argument("index", type=Path, metavar="INDEX", help="folder of the index")
    build.add_argument("--kind", choices=["exact", "ivfpq"], default="exact", help="ivfpq: faster from 100,000 on")
    build.add_argument("--weights", type=Path, metavar="FILE", help="trained weights, of which the index keeps a copy")
    build.add_argument(
        "--descriptors", type=Path, metavar="FILE.h5", help="instead of pictures: as extract writes them"
    )
    build.add_argument("--set", default="reference", metavar="SET", help="of the descriptors; default reference")
    build.add_argument("--pictures", type=Path, metavar="DIR", help="with all folders below")
    add.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="those that it holds are left out")
    query.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="files, or folders of them")
    query.add_argument("--top-k", type=values.positive, default=10, metavar="K", help="for each query; default 10")
    query.add_argument("--threshold", type=values.score, metavar="T", help="least score")
    query.add_argument("--json", action="store_true", help="for programs")
    query.add_argument("--html", type=Path, metavar="FILE", help="write the answer with pictures too")
    for parser, command in ((build, commands.index_build), (add, commands.index_add), (query, commands.index_query)):
        _add_describing(parser)
        parser.set_defaults(command=command)
    _add_input_size(build)
    _add_arch(build)


def add_estimate(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """What a run will take."""
    estimate = subparsers.add_parser("estimate", help="hours, GPUs, storage and cost of a run, without running it")
    add_profile(estimate)
    add_source(estimate)
    estimate.add_argument("--gpu", choices=["a100", "h100", "v100"], default="a100", help="default a100")
    for name, kind, text in (
        ("--nodes", values.positive, "that trainings and extraction use; default: the settings' pods"),
        ("--gpus-per-node", values.natural, "default: the settings'; 0: on processors"),
        ("--images", values.positive, "training images; default: the source's, without one DISC21's 1,000,000"),
        ("--references", values.positive, "the same; DISC21 has 1,000,000"),
        ("--queries", values.positive, "of each phase; DISC21 has 50,000"),
        ("--pairs", values.positive, "of the ground truth of phase 1; DISC21 has 4,991"),
        ("--picture-kb", values.positive, "of one picture on average; DISC21's have 167"),
    ):
        estimate.add_argument(name, type=kind, metavar="N", help=text)
    for name, amount, default, text in (
        ("--cores-per-node", values.speed, None, "default: the settings' cpu of a training's pod"),
        ("--store-gbit", values.speed, 25.0, "Gbit/s of a node to the store; default 25"),
        ("--network-gbit", values.speed, 100.0, "Gbit/s of a node to the others; default 100"),
        ("--disk-mb", values.speed, 2000.0, "MB/s of a node's disk; default 2000"),
        ("--price", values.amount, None, "of a GPU hour; default 0: the cost is that of storage and requests"),
        ("--core-price", values.amount, None, "of a core hour, for stages without GPUs; default 0"),
        ("--storage-price", values.amount, None, "of a GB and month; default 0.023"),
        ("--put-price", values.amount, None, "of a thousand PUT or LIST requests; default 0.005"),
        ("--get-price", values.amount, None, "of a thousand GET requests; default 0.0004"),
        ("--months", values.amount, None, "for which outputs are kept; default: as long as the run"),
        (
            "--failures-per-node-day",
            values.amount,
            0.0,
            "simulate runs whose nodes fail so often: goodput by checkpoint interval",
        ),
        (
            "--preemptions-per-node-day",
            values.amount,
            0.0,
            "the same with a warning, after which a checkpoint is written",
        ),
    ):
        estimate.add_argument(name, type=amount, metavar="X", default=default, help=text)
    estimate.add_argument("--runs", type=values.positive, default=20, metavar="N", help="simulated; default 20")
    estimate.add_argument("--seed", type=values.natural, default=0, metavar="N", help="of the first of them; default 0")
    estimate.add_argument("--json", action="store_true", help="for programs")
    estimate.set_defaults(command=commands.estimate)


def _add_describing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=values.positive, metavar="N", help="pictures described at once")
    parser.add_argument("--workers", type=values.natural, metavar="N", help="processes that decode")


def _add_input_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-size", type=values.size, metavar="N", help="pixels a side; default: the weights', else 512"
    )


def _add_arch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", metavar="NAME", help="timm backbone; default: the weights', else EfficientNetV2-M")


def add_profile(parser: argparse.ArgumentParser) -> None:
    """Settings."""
    parser.add_argument("--profile", default="isc21", metavar="demo|isc21|FILE.yaml", help="settings; default isc21")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change one setting, as trainings.v83.epochs=2",
    )


def add_request(parser: argparse.ArgumentParser) -> None:
    """What a run is asked for."""
    add_profile(parser)
    add_source(parser)
    parser.add_argument(
        "--launcher",
        choices=["local", "kubernetes"],
        help="default: kubernetes without --source or with --detach, else local",
    )
    parser.add_argument("--run", metavar="NAME", help="default: the profile's name")
    parser.add_argument("--from", dest="first", metavar="STAGE", help="run nothing before this stage")
    parser.add_argument("--until", dest="last", metavar="STAGE", help="run this stage and what it needs")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="trained weights; default --from is extract")
    add_store(parser)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Where the pictures are."""
    parser.add_argument("--source", metavar="URI", help="folder or s3://bucket/prefix with the pictures")
    parser.add_argument("--anonymous-source", action="store_true", help="sign no requests to the source")


def add_while(parser: argparse.ArgumentParser) -> None:
    """What happens beside a run and at its end."""
    parser.add_argument("--on-end", metavar="COMMAND", help="a shell's command when the run ends; $ISC_JOBS_STATE: how")
    parser.add_argument("--metrics-port", type=values.port, metavar="N", help="answer Prometheus there meanwhile")


def add_store(parser: argparse.ArgumentParser) -> None:
    """Where outputs are."""
    parser.add_argument(
        "--store", metavar="URI",
        help="folder or s3://bucket/prefix; default $ISC_JOBS_STORE, else isc-jobs-store here, else the cluster's",
    )  # fmt: skip
