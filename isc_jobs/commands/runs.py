"""Commands that start runs, show them and end them."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isc_jobs.spec.address import check_address
from isc_jobs.spec.errors import ExitCode, UsageError
from isc_jobs.spec.plain import plain
from isc_jobs.spec.weights import check_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from isc_jobs.controller.deployed import Deployed
    from isc_jobs.controller.request import Given, Request
    from isc_jobs.controller.run import Controller
    from isc_jobs.spec.settings import Settings
    from isc_jobs.store import Store

_FOUND = {True: "ok", False: "MISSING", None: "wait"}
_LINGER_S = 60.0  # for Prometheus to hear how a run ended
_FOLDER = "isc-jobs-store"  # the store of runs on this machine, if no other is named


def _ignore(_: object) -> None:
    return None


def run_all(arguments: argparse.Namespace) -> int:
    """Run the pipeline, or plan it, or leave it to the cluster."""
    from isc_jobs.commands.foresight import look_ahead
    from isc_jobs.controller.request import Given
    from isc_jobs.store import open_store

    with tempfile.TemporaryDirectory(prefix="isc-jobs-") as folder:
        given = Given(weights=arguments.weights, listing=Path(folder) / "listing.tsv.gz")
        request = _request(arguments, given.listing)
        store = open_store(arguments.store)
        warning = look_ahead(store, request, given)
        if warning is not None:
            print(f"isc-jobs: {plain(warning)}", file=sys.stderr, flush=True)
        if arguments.dry_run:
            return _dry_run(store, request)
        if arguments.detach:
            if arguments.on_end is not None:
                raise UsageError("--on-end is a command of this machine, and --detach leaves it: give one of the two")
            if arguments.metrics_port is not None:
                raise UsageError("--metrics-port: a detached controller's is 9464, leave it out")
            return _detach(store, request, given)
        return _run(arguments, store, request, given)


def _run(arguments: argparse.Namespace, store: "Store", request: "Request", given: "Given | None" = None) -> int:
    """Run, answer Prometheus meanwhile, and call the user's command in the end."""
    from isc_jobs.commands.ending import call_on_end
    from isc_jobs.controller.metrics import Metrics, serve
    from isc_jobs.controller.signals import signals_as_before

    metrics = Metrics()
    if arguments.metrics_port is not None:
        serve(metrics, arguments.metrics_port)
    try:
        with call_on_end(arguments.on_end, store, request.run):
            return _controller(store, request, given, metrics.show).run()
    finally:
        with signals_as_before():  # its Job goes with the run, and the pod's grace period is longer
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            metrics.linger(_LINGER_S)


def _controller(
    store: "Store", request: "Request", given: "Given | None" = None, show: "Callable[[dict[str, Any]], None]" = _ignore
) -> "Controller":
    from isc_jobs.controller.launchers import make_launcher, policy_of
    from isc_jobs.controller.run import Controller

    return Controller(store, request, given, lambda fenced: make_launcher(fenced, request), policy_of(request), show)


def _request(arguments: argparse.Namespace, listing: Path = Path(os.devnull)) -> "Request":
    """What the command line asks for; the store that a cluster's settings name is filled in.

    The source is listed, this once, to the file ``listing``.
    """
    from isc_jobs.controller.request import Request
    from isc_jobs.spec.pipeline import check_run_name
    from isc_jobs.spec.profile import load_settings
    from isc_jobs.store.listing import source_digest
    from isc_jobs.store.source import open_source

    detached = getattr(arguments, "detach", False)
    launcher = arguments.launcher or ("local" if arguments.source and not detached else "kubernetes")
    settings = load_settings(arguments.profile, arguments.overrides)
    arguments.store = arguments.store or os.environ.get("ISC_JOBS_STORE")
    if launcher == "kubernetes":
        settings = _deployed(arguments, settings.cluster.namespace)
    arguments.store = check_address("--store", arguments.store or _FOLDER)
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
    from isc_jobs.spec.profile import load_settings

    try:
        deployed = _read_deployed(namespace)
    except UsageError as error:
        if arguments.launcher is not None or arguments.source is not None or getattr(arguments, "detach", False):
            raise
        raise UsageError(
            "--source is missing: give the folder or s3://bucket/prefix that holds the pictures; without it runs are "
            f"in a cluster, and {error}"
        ) from error
    arguments.source = arguments.source or deployed.source
    arguments.store = arguments.store or deployed.store
    return load_settings(arguments.profile, arguments.overrides, deployed=deployed.settings)


def _read_deployed(namespace: str) -> "Deployed":
    from isc_jobs.controller.deployed import NAME, parse_deployed
    from isc_jobs.controller.kubernetes.api import Api

    return parse_deployed(Api(namespace).get("v1", "ConfigMap", NAME))


def open_named_store(arguments: argparse.Namespace) -> "Store":
    """The store of a run: as given, else this machine's if there is one, else the cluster's."""
    from isc_jobs.store import open_store

    uri = arguments.store or os.environ.get("ISC_JOBS_STORE") or (_FOLDER if Path(_FOLDER).is_dir() else None)
    return open_store(uri or _cluster_store())


def _cluster_store() -> str:
    from isc_jobs.spec.profile import load_settings

    try:
        store = _read_deployed(load_settings("isc21").cluster.namespace).store
    except UsageError as error:
        raise UsageError(
            f"no store: give --store (of the demo .demo/store); here is no {_FOLDER}/, and {error}"
        ) from error
    if store is None:
        raise UsageError(f"no store: give --store; here is no {_FOLDER}/, and make deploy has left none in the cluster")
    return store


def _digest(weights: Path | None) -> str | None:
    from isc_jobs.store.artifacts import file_sha256

    if weights is None:
        return None
    check_weights(weights)
    try:
        return file_sha256(weights)
    except OSError as error:
        raise UsageError(f"weights {weights}: {error.strerror}") from error


def _dry_run(store: "Store", request: "Request") -> int:
    from isc_jobs.controller.request import check_inputs, committed_stages, pipeline_of, wanted_part

    pipeline = pipeline_of(request)
    committed = committed_stages(store, pipeline)
    wanted = wanted_part(pipeline, request)
    check_inputs(wanted, committed)
    part = {stage.name for stage in wanted}
    for stage in pipeline:
        state = "cached" if stage.name in committed else "run" if stage.name in part else "left out"
        print(f"  {stage.name:<18}{stage.key[:12]}  {state}")
    return int(ExitCode.OK)


def _detach(store: "Store", request: "Request", given: "Given") -> int:
    from isc_jobs.controller.kubernetes.detached import start_controller

    print(start_controller(store, request, given))
    return int(ExitCode.OK)


def check(arguments: argparse.Namespace) -> int:
    """See whether a deployed cluster has what runs need."""
    from isc_jobs.controller.kubernetes.api import Api
    from isc_jobs.controller.kubernetes.check import check_cluster
    from isc_jobs.controller.request import pipeline_of

    arguments.launcher = "kubernetes"
    request = _request(arguments)
    cluster = request.checked_settings().cluster
    complete = True
    for found, sentence in check_cluster(Api(cluster.namespace), pipeline_of(request), cluster, arguments.store):
        print(f"{_FOUND[found]:<8} {plain(sentence)}", flush=True)
        complete = complete and found is not False
    return int(ExitCode.OK if complete else ExitCode.USAGE)


def render(arguments: argparse.Namespace) -> int:
    """Print a run's Kubernetes objects."""
    import yaml

    from isc_jobs.controller.manifests import attempt_objects, run_owner
    from isc_jobs.controller.request import pipeline_of, wanted_part

    request = _request(arguments)
    cluster = request.checked_settings().cluster
    objects = [run_owner(request.run, arguments.store, cluster)]
    for stage in wanted_part(pipeline_of(request), request):
        objects += attempt_objects(stage.spec(request.run, 1, arguments.store), cluster)
    print(yaml.safe_dump_all(objects, sort_keys=False, width=120), end="")
    return int(ExitCode.OK)


def diff(arguments: argparse.Namespace) -> int:
    """Show which stages changed settings run again."""
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.controller.request import pipeline_of
    from isc_jobs.controller.status import changed_request
    from isc_jobs.store import open_store

    request = _request(arguments)
    manifest, _ = read_manifest(open_store(arguments.store), request.run)
    for line in changed_request(manifest.request, request):
        print(line)
    for stage in pipeline_of(request):
        same = manifest.stages.get(stage.name) == stage.key
        print(f"  {stage.name:<18}{'same' if same else 'runs again'}")
    return int(ExitCode.OK)


def resume(arguments: argparse.Namespace) -> int:
    """Go on with a run as it was started."""
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.controller.status import has_ended

    store = open_named_store(arguments)
    request = read_manifest(store, arguments.run)[0].request
    if arguments.unattended and has_ended(store, arguments.run):
        _controller(store, request).settle()
        return int(ExitCode.OK)
    return _run(arguments, store, request)


def status(arguments: argparse.Namespace) -> int:
    """Show what each stage of a run is doing."""
    import json

    from isc_jobs.controller.status import run_status, status_table

    store = open_named_store(arguments)
    if arguments.watch:
        from isc_jobs.commands.watching import watch

        watch(store, arguments.run)
        return int(ExitCode.OK)
    status = run_status(store, arguments.run)
    print(json.dumps(status, indent=1) if arguments.json else status_table(status))
    return int(ExitCode.OK)


def cancel(arguments: argparse.Namespace) -> int:
    """End a run; returns when it has ended. If its controller has gone, what it left is ended here."""
    import time
    from contextlib import suppress

    from isc_jobs.controller.lease import LeaseHeld, is_held
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.controller.status import has_ended, request_cancel

    store = open_named_store(arguments)
    print(request_cancel(store, arguments.run), flush=True)
    while not has_ended(store, arguments.run):
        if not is_held(store, arguments.run, time.time()):
            with suppress(LeaseHeld):  # a successor has come meanwhile: it reads the wish
                _controller(store, read_manifest(store, arguments.run)[0].request).cancel()
        time.sleep(1)
    request = read_manifest(store, arguments.run)[0].request
    if request.launcher == "kubernetes" and not is_held(store, arguments.run, time.time()):
        with suppress(LeaseHeld):  # a successor tidies
            _controller(store, request).settle()  # of a run whose controller died before it had tidied
    return int(ExitCode.OK)
