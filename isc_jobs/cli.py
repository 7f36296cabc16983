"""isc-jobs: the command line. Heavy imports wait until a command needs them."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from isc_jobs import __version__
from isc_jobs.spec.errors import ExitCode, IscJobsError, UsageError

if TYPE_CHECKING:
    from isc_jobs.controller.manifest import Request
    from isc_jobs.spec.settings import Settings
    from isc_jobs.store import Store

_WEIGHTS_BEGIN = (b"PK", b"\x80\x02")  # torch's zip files, and those before torch 1.6
_EXAMPLES = """examples:
  isc-jobs dataset make ~/Pictures --out bench
  isc-jobs run-all --profile demo --source bench --store runs
  isc-jobs status demo --store runs
exit codes: 0 done, 64 usage, 65 data, 70 internal, 75 try later, 130 interrupted, 143 terminated"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A wrong command line is one sentence and exit code 64."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(int(ExitCode.USAGE))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    parsed = build_parser().parse_args(arguments)
    try:
        return int(parsed.command(parsed))
    except IscJobsError as error:
        print(f"isc-jobs: {error}", file=sys.stderr)
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
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for name, command, text in (
        ("run-all", _run_all, "run the pipeline"), ("render", _render, "print what a run creates in a cluster"),
        ("diff", _diff, "show which stages changed settings run again"),
        ("check", _check, "see whether a deployed cluster has what runs need"),
    ):  # fmt: skip
        sub = commands.add_parser(name, help=text)
        _add_request(sub)
        if name == "run-all":
            sub.add_argument("--dry-run", action="store_true", help="print the plan")
            sub.add_argument("--detach", action="store_true", help="let the cluster run the controller, and return")
        sub.set_defaults(command=command)
    for name, command, text in (
        ("status", _status, "what each stage of a run is doing"), ("logs", _logs, "the log of an attempt"),
        ("cancel", _cancel, "end a run; what is finished stays"), ("resume", _resume, "go on with a run"),
    ):  # fmt: skip
        sub = commands.add_parser(name, help=text)
        sub.add_argument("run", metavar="RUN", help="name of the run")
        if name == "status":
            sub.add_argument("--json", action="store_true", help="for programs")
        if name == "logs":
            sub.add_argument("stage", metavar="STAGE", help="as status lists them, like train-v83")
            sub.add_argument("--attempt", type=int, help="default: the latest")
            sub.add_argument("--rank", type=int, default=0, help="process of a training")
        _add_store(sub)
        sub.set_defaults(command=command)
    dataset = commands.add_parser("dataset", help="make data sets").add_subparsers(required=True, metavar="ACTION")
    make = dataset.add_parser("make", help="a copy-detection benchmark from any folder of pictures")
    make.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of pictures, with all folders below it")
    make.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the data set")
    make.add_argument("--seed", type=int, default=0, help="of the split and the edits; default 0")
    make.set_defaults(command=_dataset_make)
    evaluate = commands.add_parser("evaluate", help="uAP and recall at precision 90 of a submission")
    evaluate.add_argument("submission", type=Path, help="descriptors .h5 or matches .csv")
    evaluate.add_argument("ground_truth", type=Path, help="query_id,reference_id")
    evaluate.add_argument("--json", action="store_true", help="for programs")
    evaluate.set_defaults(command=_evaluate)
    return parser


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="isc21", metavar="demo|isc21|FILE.yaml", help="settings; default isc21")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change one setting, as trainings.v83.epochs=2",
    )
    parser.add_argument("--source", metavar="URI", help="folder or s3://bucket/prefix with the pictures")
    parser.add_argument("--anonymous-source", action="store_true", help="sign no requests to the source")
    parser.add_argument(
        "--launcher", choices=["local", "kubernetes"], help="default: local with --source, else kubernetes"
    )
    parser.add_argument("--run", metavar="NAME", help="default: the profile's name")
    parser.add_argument("--from", dest="first", metavar="STAGE", help="run nothing before this stage")
    parser.add_argument("--until", dest="last", metavar="STAGE", help="run nothing after this stage")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="trained weights; default --from is extract")
    _add_store(parser)


def _add_store(parser: argparse.ArgumentParser) -> None:
    default = _default_store()
    parser.add_argument("--store", default=default, metavar="URI", help=f"folder or s3://bucket/prefix; now {default}")


def _default_store() -> str:
    return os.environ.get("ISC_JOBS_STORE", "isc-jobs-store")


def _run_all(arguments: argparse.Namespace) -> int:
    from isc_jobs.controller.launchers import make_launcher
    from isc_jobs.controller.run import Controller
    from isc_jobs.store import open_store

    request = _request(arguments)
    store = open_store(arguments.store)
    if arguments.dry_run:
        return _dry_run(store, request)
    if arguments.detach:
        return _detach(store, request, arguments.weights)
    return Controller(store, request, arguments.weights, lambda: make_launcher(store, request)).run()


def _request(arguments: argparse.Namespace) -> "Request":
    """What the command line asks for; the store that a cluster's settings name is filled in."""
    from isc_jobs.controller.manifest import Request
    from isc_jobs.spec.pipeline import check_run_name
    from isc_jobs.spec.profile import load_settings
    from isc_jobs.store.source import open_source, source_digest

    launcher = arguments.launcher or ("local" if arguments.source else "kubernetes")
    settings = load_settings(arguments.profile, arguments.overrides)
    if launcher == "kubernetes":
        settings = _deployed(arguments, settings.cluster.namespace)
    run = check_run_name(arguments.run or Path(arguments.profile).stem)
    if arguments.source is None:
        raise UsageError("--source is missing: give the folder or s3://bucket/prefix that holds the pictures")
    source = open_source(arguments.source, anonymous=arguments.anonymous_source)
    return Request(
        run=run, settings=settings.model_dump(mode="json"), source=source.uri, anonymous=arguments.anonymous_source,
        source_digest=source_digest(source), weights_sha256=_digest(arguments.weights),
        first=arguments.first, last=arguments.last, launcher=launcher,
    )  # fmt: skip


def _deployed(arguments: argparse.Namespace, namespace: str) -> "Settings":
    """The settings with those of the cluster between; fills in the store and source that were not given."""
    from isc_jobs.controller.deployed import NAME, parse_deployed
    from isc_jobs.controller.kubernetes.api import Api
    from isc_jobs.spec.profile import load_settings

    deployed = parse_deployed(Api(namespace).get("v1", "ConfigMap", NAME))
    arguments.source = arguments.source or deployed.source
    if arguments.store == _default_store() and deployed.store is not None:
        arguments.store = deployed.store
    return load_settings(arguments.profile, arguments.overrides, deployed=deployed.settings)


def _digest(weights: Path | None) -> str | None:
    from isc_jobs.store.artifacts import file_sha256

    if weights is None:
        return None
    try:
        with weights.open("rb") as file:
            if file.read(2) not in _WEIGHTS_BEGIN:
                raise UsageError(f"--weights {weights} is no PyTorch checkpoint")
        return file_sha256(weights)
    except OSError as error:
        raise UsageError(f"--weights {weights}: {error.strerror}") from error


def _dry_run(store: "Store", request: "Request") -> int:
    from isc_jobs.controller.run import check_inputs, committed_stages, pipeline_of, wanted_part

    pipeline = pipeline_of(request)
    committed = committed_stages(store, pipeline)
    wanted = wanted_part(pipeline, request)
    check_inputs(wanted, committed)
    part = {stage.name for stage in wanted}
    for stage in pipeline:
        state = "cached" if stage.name in committed else "run" if stage.name in part else "left out"
        print(f"  {stage.name:<18}{stage.key[:12]}  {state}")
    return int(ExitCode.OK)


def _detach(store: "Store", request: "Request", weights: Path | None) -> int:
    from isc_jobs.controller.kubernetes.detached import start_controller

    print(start_controller(store, request, weights))
    return int(ExitCode.OK)


def _check(arguments: argparse.Namespace) -> int:
    from isc_jobs.controller.kubernetes.api import Api
    from isc_jobs.controller.kubernetes.check import check_cluster
    from isc_jobs.controller.run import pipeline_of
    from isc_jobs.spec.settings import Settings

    arguments.launcher = "kubernetes"
    request = _request(arguments)
    cluster = Settings.model_validate(request.settings).cluster
    for line in check_cluster(Api(cluster.namespace), pipeline_of(request), cluster, arguments.store):
        print(line, flush=True)
    return int(ExitCode.OK)


def _render(arguments: argparse.Namespace) -> int:
    import yaml

    from isc_jobs.controller.manifests import attempt_objects, run_owner
    from isc_jobs.controller.run import pipeline_of, wanted_part
    from isc_jobs.spec.settings import Settings

    request = _request(arguments)
    cluster = Settings.model_validate(request.settings).cluster
    objects = [run_owner(request.run, cluster)]
    for stage in wanted_part(pipeline_of(request), request):
        objects += attempt_objects(stage.spec(request.run, 1, arguments.store), cluster)
    print(yaml.safe_dump_all(objects, sort_keys=False, width=120), end="")
    return int(ExitCode.OK)


def _diff(arguments: argparse.Namespace) -> int:
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.controller.run import pipeline_of
    from isc_jobs.controller.status import changed_settings
    from isc_jobs.store import open_store

    request = _request(arguments)
    manifest, _ = read_manifest(open_store(arguments.store), request.run)
    for line in changed_settings(manifest.request.settings, request.settings):
        print(line)
    for stage in pipeline_of(request):
        same = manifest.stages.get(stage.name) == stage.key
        print(f"  {stage.name:<18}{'same' if same else 'runs again'}")
    return int(ExitCode.OK)


def _resume(arguments: argparse.Namespace) -> int:
    from isc_jobs.controller.launchers import make_launcher
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.controller.run import Controller
    from isc_jobs.store import open_store

    store = open_store(arguments.store)
    manifest, _ = read_manifest(store, arguments.run)
    return Controller(store, manifest.request, None, lambda: make_launcher(store, manifest.request)).run()


def _status(arguments: argparse.Namespace) -> int:
    import json

    from isc_jobs.controller.status import run_status, status_table
    from isc_jobs.store import open_store

    status = run_status(open_store(arguments.store), arguments.run)
    print(json.dumps(status, indent=1) if arguments.json else status_table(status))
    return int(ExitCode.OK)


def _logs(arguments: argparse.Namespace) -> int:
    from isc_jobs.controller.status import stage_log
    from isc_jobs.store import open_store

    log = stage_log(open_store(arguments.store), arguments.run, arguments.stage, arguments.attempt, arguments.rank)
    sys.stdout.write(log)
    return int(ExitCode.OK)


def _cancel(arguments: argparse.Namespace) -> int:
    from isc_jobs.controller.status import cancel_run
    from isc_jobs.store import open_store

    print(cancel_run(open_store(arguments.store), arguments.run))
    return int(ExitCode.OK)


def _dataset_make(arguments: argparse.Namespace) -> int:
    from isc_jobs.datasets.make import make_dataset

    counts = make_dataset(arguments.photos, arguments.out, arguments.seed)
    print(f"{arguments.out}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
    return int(ExitCode.OK)


def _evaluate(arguments: argparse.Namespace) -> int:
    import json

    from isc_jobs.retrieval.metrics import evaluate_files

    scores = evaluate_files(arguments.submission, arguments.ground_truth)
    values = {"average_precision": scores.uap, "recall_p90": scores.recall_at_p90}
    track = "matching" if arguments.submission.suffix == ".csv" else "descriptor"
    shown = f"{track} track\nuAP {scores.uap:.5f}\nR@P90 {scores.recall_at_p90:.5f}"
    print(json.dumps(values, indent=2) if arguments.json else shown)
    return int(ExitCode.OK)
