"""The loop: observe, plan, apply, until the run is done."""

import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from isc_jobs.controller.launcher import Launcher
from isc_jobs.controller.lease import Lease
from isc_jobs.controller.manifest import AttemptRecord, Manifest, ManifestFile, Request
from isc_jobs.controller.plan import Action, Fail, Finish, Kill, Observed, Policy, Start, plan
from isc_jobs.spec.errors import ExitCode, UsageError
from isc_jobs.spec.pipeline import Pipeline, Stage, build_pipeline, find_stage, with_weights
from isc_jobs.spec.settings import Settings
from isc_jobs.store import Store
from isc_jobs.store.artifacts import file_sha256, publish, read_commit, verify_commit
from isc_jobs.store.listing import keep_listing

_TICK_S = 0.2
_WATCH_S = 1.0  # how often cancel and lease are looked at
_WEIGHTS = "weights.pth.tar"


def pipeline_of(request: Request) -> Pipeline:
    """The request's pipeline; raises UsageError for wrong stages."""
    settings = Settings.model_validate(request.settings)
    pipeline = build_pipeline(settings, request.source, request.source_digest)
    for stage in pipeline:
        if stage.program == "download":
            stage.execution["anonymous"] = request.anonymous
    if request.weights_sha256 is not None:
        pipeline = with_weights(pipeline, request.first or "extract", request.weights_sha256)
    return pipeline


def wanted_part(pipeline: Pipeline, request: Request) -> Pipeline:
    """The stages between --from and --until; with given weights, all that the last one needs too."""
    names = [stage.name for stage in pipeline]
    end = names.index(find_stage(pipeline, request.last).name) if request.last else len(names) - 1
    begin = 0
    if request.first and request.weights_sha256 is None:
        begin = names.index(find_stage(pipeline, request.first).name)
    if begin > end:
        raise UsageError(f"--from {request.first} stands after --until {request.last}: order is {', '.join(names)}")
    return pipeline[begin : end + 1]


def committed_stages(store: Store, pipeline: Pipeline) -> frozenset[str]:
    """Stages whose output is committed and whole."""
    found = set()
    for stage in pipeline:
        commit = read_commit(store, stage.ref)
        if commit is not None and verify_commit(store, commit):
            found.add(stage.name)
    return frozenset(found)


def check_inputs(part: Pipeline, committed: frozenset[str]) -> None:
    """Raises UsageError if a stage before --from has no output."""
    names = {stage.name for stage in part}
    for stage in part:
        lost = [r.stage for r in stage.inputs.values() if r.stage not in names | committed and r.stage != "weights"]
        if lost:
            raise UsageError(
                f"--from {part[0].name}: {stage.name} needs {lost[0]}, which is not finished: begin earlier"
            )


@dataclass
class _Stopped(Exception):
    signum: int


class Controller:
    """Runs one request to its end."""

    def __init__(
        self, store: Store, request: Request, weights: Path | None, launcher: Callable[[Callable[[], None]], Launcher],
        policy: Policy | None = None, *, listing: Path | None = None,
    ) -> None:  # fmt: skip
        """Check the request; nothing is started, and no launcher made, before ``run`` holds the lease.

        ``launcher`` is given what keeps the lease alive while it waits; ``listing`` is the source's, if this
        process has made it.
        """
        self._store, self._request, self._weights, self._listing = store, request, weights, listing
        self._pipeline = pipeline_of(request)
        self._part = wanted_part(self._pipeline, request)
        self._policy = policy or Policy()
        self._lease = Lease(store, request.run)
        self._make_launcher = launcher
        self._finished: set[str] = set()
        self._watched = 0.0

    def run(self) -> int:
        """Run; the exit code. On Ctrl-C or SIGTERM children are ended and the run can be resumed."""
        epoch = self._lease.acquire()
        try:
            self._launcher = self._make_launcher(self._lease.renew)
            return self._run(epoch)
        finally:
            self._lease.release()

    def _run(self, epoch: int) -> int:
        self._store.delete(cancel_key(self._request.run))
        if self._weights is not None:
            import_weights(self._store, self._request, self._pipeline, self._weights)
        committed = committed_stages(self._store, self._pipeline)
        check_inputs(self._part, committed)
        if self._listing is not None and "download" not in committed:
            keep_listing(self._store, self._request.source_digest, self._listing)
        first = 1 + max([0, *(record.attempt for record in _earlier(self._store, self._request.run))])
        keys = {stage.name: stage.key for stage in self._pipeline}
        manifest = Manifest(request=self._request, stages=keys, state="running", epoch=epoch)
        self._file = ManifestFile(self._store, manifest)
        self._finished = set(committed)
        for attempt in self._launcher.attempts():  # of an earlier controller
            if attempt.exit_code is None and attempt.key not in keys.values():
                self._launcher.stop(attempt.stage, attempt.number, "the settings have changed")
        cached = [stage.name for stage in self._part if stage.name in committed]
        if cached:
            say(f"finished before, skipped: {', '.join(cached)}")
        before = {number: signal.signal(number, _raise_stopped) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self._loop(first)
        except _Stopped as stopped:
            return self._interrupted(stopped.signum)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._launcher.stop_all("the controller ends")

    def _loop(self, first: int) -> int:
        while True:
            self._watch()
            if self._file.manifest.state == "cancelled":
                return int(ExitCode.INTERRUPTED)
            observed = self._observe()
            for action in plan(self._part, observed, time.monotonic(), self._policy, first_attempt=first):
                code = self._apply(action)
                if code is not None:
                    return code
            time.sleep(_TICK_S)

    def _observe(self) -> Observed:
        attempts = self._launcher.attempts()
        recorded = {(record.stage, record.attempt) for record in self._file.manifest.attempts}
        for attempt in attempts:
            if attempt.exit_code is not None and (attempt.stage, attempt.number) not in recorded:
                self._ended(attempt.stage, attempt.number, attempt.exit_code, attempt.reason)
        return Observed(frozenset(self._finished), attempts)

    def _ended(self, name: str, number: int, code: int, reason: str) -> None:
        stage = find_stage(self._pipeline, name)
        commit = read_commit(self._store, stage.ref)
        if commit is not None and verify_commit(self._store, commit):
            self._finished.add(name)
            _prune(self._store, stage)
            say(f"{name}  finished in {commit.seconds:.1f} s")
        else:
            say(f"{name}  attempt {number} failed: {reason or f'exit code {code}'}")
        record = AttemptRecord(stage=name, attempt=number, exit_code=code, reason=reason)
        self._file.manifest.attempts.append(record)
        self._file.save()

    def _apply(self, action: Action) -> int | None:
        match action:
            case Start(name, attempt):
                say(f"{name}  starts")
                stage = find_stage(self._pipeline, name)
                self._launcher.start(stage.spec(self._request.run, attempt, self._store.uri))
            case Kill(name, attempt, reason):
                self._launcher.stop(name, attempt, reason)
            case Fail(_, reason, exit_code):
                self._end("failed", reason)
                print(f"isc-jobs: {reason}", file=sys.stderr, flush=True)
                return exit_code
            case Finish():
                self._end("succeeded", "")
                say("\n".join(summary_lines(self._store, self._part)))
                return int(ExitCode.OK)
        return None

    def _watch(self) -> None:
        """Now and then: prolong the lease, see whether the run was cancelled."""
        if time.monotonic() - self._watched < _WATCH_S:
            return
        self._watched = time.monotonic()
        self._lease.renew()
        if self._store.stat(cancel_key(self._request.run)) is not None:
            self._launcher.stop_all("the run is cancelled")
            self._end("cancelled", "cancelled")
            say(f"run {self._request.run} is cancelled; what is finished stays")

    def _interrupted(self, signum: int) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        say("interrupted: ending the stages, which write their checkpoints")
        self._launcher.stop_all("the controller was interrupted")
        self._observe()
        self._end("interrupted", signal.Signals(signum).name)
        say(f"run it again, or `isc-jobs resume {self._request.run} --store {self._store.uri}`, to go on")
        return int(ExitCode.INTERRUPTED if signum == signal.SIGINT else ExitCode.TERMINATED)

    def _end(self, state: str, reason: str) -> None:
        manifest = self._file.manifest
        self._file.manifest = Manifest.model_validate(manifest.model_dump() | {"state": state, "reason": reason})
        self._file.save()


def cancel_key(run: str) -> str:
    """Where a wish to cancel is left for the controller."""
    return f"runs/{run}/cancel.json"


def import_weights(store: Store, request: Request, pipeline: Pipeline, path: Path) -> None:
    """Commit a given weights file as the output of the stage ``weights``."""
    ref = find_stage(pipeline, "weights").ref
    if read_commit(store, ref) is not None:
        return
    if file_sha256(path) != request.weights_sha256:
        raise UsageError(f"--weights {path} has changed while it was read: run again")
    with tempfile.TemporaryDirectory(prefix="isc-jobs-") as folder:
        (Path(folder) / _WEIGHTS).symlink_to(path.resolve())
        publish(store, ref, Path(folder), run=request.run, attempt=1, summary={}, provenance={}, seconds=0.0)


def summary_lines(store: Store, part: Pipeline) -> list[str]:
    """Seconds per stage, and where the outputs are."""
    lines = []
    for stage in part:
        commit = read_commit(store, stage.ref)
        if commit is not None:
            lines.append(f"  {stage.name:<18}{commit.seconds:>8.1f} s   {store.uri}/artifacts/{stage.name}/{stage.key}")
    last = part[-1]
    if last.program == "evaluate":
        lines.append(f"report: {store.uri}/artifacts/{last.name}/{last.key}/report.html")
    return lines


def _earlier(store: Store, run: str) -> list[AttemptRecord]:
    """Attempts of earlier controllers, so that numbers are not used twice."""
    numbers = []
    for info in store.list(f"runs/{run}/"):
        stage, _, rest = info.key.removeprefix(f"runs/{run}/").partition("/attempt-")
        if rest.endswith("/spec.json"):
            numbers.append(AttemptRecord(stage=stage, attempt=int(rest.split("/")[0])))
    return numbers


def _prune(store: Store, stage: Stage) -> None:
    """Mid-stage checkpoints of a finished stage are of no more use."""
    for info in list(store.list(f"checkpoints/{stage.key}/")):
        store.delete(info.key)


def _raise_stopped(signum: int, _: FrameType | None) -> None:
    raise _Stopped(signum)


def say(line: str) -> None:
    """A line of progress."""
    print(line, flush=True)
