"""What each command of the command line does: arguments in, exit code out. Heavy imports wait until one needs them."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from isc_jobs.spec.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from isc_jobs.controller.manifest import Request
    from isc_jobs.spec.settings import Settings
    from isc_jobs.store import Store

_WEIGHTS_BEGIN = (b"PK", b"\x80\x02")  # torch's zip files, and those before torch 1.6


def default_store() -> str:
    """The store if none is given."""
    return os.environ.get("ISC_JOBS_STORE", "isc-jobs-store")


def run_all(arguments: argparse.Namespace) -> int:
    """Run the pipeline, or plan it, or leave it to the cluster."""
    from isc_jobs.controller.launchers import make_launcher
    from isc_jobs.controller.run import Controller
    from isc_jobs.store import open_store

    with tempfile.TemporaryDirectory(prefix="isc-jobs-") as folder:
        listing = Path(folder) / "listing.tsv.gz"
        request = _request(arguments, listing)
        store = open_store(arguments.store)
        if arguments.dry_run:
            return _dry_run(store, request)
        if arguments.detach:
            return _detach(store, request, arguments.weights, listing)
        return Controller(
            store, request, arguments.weights, lambda keep_alive: make_launcher(store, request, keep_alive),
            listing=listing,
        ).run()  # fmt: skip


def _request(arguments: argparse.Namespace, listing: Path = Path(os.devnull)) -> "Request":
    """What the command line asks for; the store that a cluster's settings name is filled in.

    The source is listed, this once, to the file ``listing``.
    """
    from isc_jobs.controller.manifest import Request
    from isc_jobs.spec.pipeline import check_run_name
    from isc_jobs.spec.profile import load_settings
    from isc_jobs.store.listing import source_digest
    from isc_jobs.store.source import open_source

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
        source_digest=source_digest(source, listing), weights_sha256=_digest(arguments.weights),
        first=arguments.first, last=arguments.last, launcher=launcher,
    )  # fmt: skip


def _deployed(arguments: argparse.Namespace, namespace: str) -> "Settings":
    """The settings with those of the cluster between; fills in the store and source that were not given."""
    from isc_jobs.controller.deployed import NAME, parse_deployed
    from isc_jobs.controller.kubernetes.api import Api
    from isc_jobs.spec.profile import load_settings

    deployed = parse_deployed(Api(namespace).get("v1", "ConfigMap", NAME))
    arguments.source = arguments.source or deployed.source
    if arguments.store == default_store() and deployed.store is not None:
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


def _detach(store: "Store", request: "Request", weights: Path | None, listing: Path) -> int:
    from isc_jobs.controller.kubernetes.detached import start_controller

    print(start_controller(store, request, weights, listing))
    return int(ExitCode.OK)


def check(arguments: argparse.Namespace) -> int:
    """See whether a deployed cluster has what runs need."""
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


def render(arguments: argparse.Namespace) -> int:
    """Print a run's Kubernetes objects."""
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


def diff(arguments: argparse.Namespace) -> int:
    """Show which stages changed settings run again."""
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


def resume(arguments: argparse.Namespace) -> int:
    """Go on with a run as it was started."""
    from isc_jobs.controller.launchers import make_launcher
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.controller.run import Controller
    from isc_jobs.store import open_store

    store = open_store(arguments.store)
    manifest, _ = read_manifest(store, arguments.run)
    return Controller(
        store, manifest.request, None, lambda keep_alive: make_launcher(store, manifest.request, keep_alive)
    ).run()


def status(arguments: argparse.Namespace) -> int:
    """Show what each stage of a run is doing."""
    import json

    from isc_jobs.controller.status import run_status, status_table
    from isc_jobs.store import open_store

    status = run_status(open_store(arguments.store), arguments.run)
    print(json.dumps(status, indent=1) if arguments.json else status_table(status))
    return int(ExitCode.OK)


def logs(arguments: argparse.Namespace) -> int:
    """Print the log of an attempt."""
    from isc_jobs.controller.status import stage_log
    from isc_jobs.store import open_store

    log = stage_log(open_store(arguments.store), arguments.run, arguments.stage, arguments.attempt, arguments.rank)
    sys.stdout.write(log)
    return int(ExitCode.OK)


def cancel(arguments: argparse.Namespace) -> int:
    """End a run."""
    from isc_jobs.controller.status import cancel_run
    from isc_jobs.store import open_store

    print(cancel_run(open_store(arguments.store), arguments.run))
    return int(ExitCode.OK)


def dataset_make(arguments: argparse.Namespace) -> int:
    """Make a data set out of a folder of pictures."""
    from isc_jobs.datasets.make import make_dataset

    counts = make_dataset(arguments.photos, arguments.out, arguments.seed)
    print(f"{arguments.out}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
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
