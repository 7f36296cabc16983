"""The loop: observe, plan, apply, until the run is done."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from isc_jobs.controller.attempts import used_numbers
from isc_jobs.controller.launcher import Launcher
from isc_jobs.controller.lease import FencedStore, Lease, LeaseLost
from isc_jobs.controller.live_report import LiveReport
from isc_jobs.controller.manifest import AttemptRecord, Manifest, ManifestFile, Running, State
from isc_jobs.controller.pace import Pace
from isc_jobs.controller.plan import (
    Action,
    Attempt,
    Fail,
    Finish,
    Kill,
    Observed,
    Policy,
    Start,
    describe_exit,
    failure_kind,
    plan,
)
from isc_jobs.controller.request import (
    Given,
    Request,
    cancel_key,
    check_inputs,
    committed_stages,
    pipeline_of,
    wanted_part,
)
from isc_jobs.controller.signals import handle, raise_stopped, signals_as_before
from isc_jobs.controller.status import summary_lines
from isc_jobs.spec.errors import DataError, ExitCode, Stopped, TemporaryError, UsageError
from isc_jobs.spec.pipeline import Stage, find_stage
from isc_jobs.spec.plain import plain
from isc_jobs.store import Store
from isc_jobs.store.artifacts import read_commit, verify_commit

_TICK = Pace(0.02, 0.2, 1.0)  # of the loop, by the time since an attempt began or ended
_WATCH_S = 5.0  # how often cancel and lease are looked at
_TROUBLED_S = 5.0  # between tries while the store or the cluster is away


class Controller:
    """Runs one request to its end."""

    def __init__(
        self, store: Store, request: Request, given: Given | None, launcher: Callable[[FencedStore], Launcher],
        policy: Policy | None = None, show: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Check the request; nothing is started, and no launcher made, before ``run`` holds the lease.

        ``show`` gets the run's status now and then.
        """
        self._request, self._given = request, given
        self._lease = Lease(store, request.run)
        self._store = FencedStore(store, self._lease)
        self._report = LiveReport(self._store, show)
        self._pipeline = pipeline_of(request)
        self._part = wanted_part(self._pipeline, request)
        self._policy = policy or Policy()
        self._make_launcher = launcher
        self._finished: set[str] = set()
        self._prunable: list[Stage] = []
        self._watched = 0.0
        self._seen: list[tuple[str, int, int | None]] = []  # attempts and exit codes,
        self._moved = 0.0  # and since when they are these

    def run(self) -> int:
        """Run; the exit code. On Ctrl-C or SIGTERM the run is left so that it can be resumed."""
        with self._held() as epoch:
            self._bring()
            committed = committed_stages(self._store, self._pipeline)
            check_inputs(self._part, committed)
            self._open(epoch, committed)
            with signals_as_before():
                handle(raise_stopped)
                return self._run()

    def cancel(self) -> None:
        """End a run whose controller has gone."""
        with self._held() as epoch:
            self._open(epoch, committed_stages(self._store, self._pipeline))
            with signals_as_before():
                self._cancel()

    def settle(self) -> None:
        """Remove what a run that has ended left, if its controller could not."""
        with self._held():
            self._launcher = self._make_launcher(self._store)
            self._patiently(self._launcher.close)

    @contextmanager
    def _held(self) -> Iterator[int]:
        epoch = self._lease.acquire()
        try:
            yield epoch
        finally:
            with suppress(TemporaryError):  # it ends by itself, or is another's
                self._lease.release()

    def _bring(self) -> None:
        """What a run that is begun by hand needs in the store; an old wish to cancel is not meant for it."""
        if self._given is not None:
            self._store.delete(cancel_key(self._request.run))
            self._given.bring(self._store, self._request, self._pipeline)

    def _open(self, epoch: int, committed: frozenset[str]) -> None:
        """Write the manifest, take over what an earlier controller left."""
        self._used = used_numbers(self._store, self._request.run)
        keys = {stage.name: stage.key for stage in self._pipeline}
        part = [stage.name for stage in self._part]
        self._launcher = self._make_launcher(self._store)
        manifest = Manifest(request=self._request, stages=keys, part=part, state="running", epoch=epoch)
        self._file = ManifestFile(self._store, manifest)
        self._finished = set(committed)
        if notice := self._file.notice():
            say(notice)
        for attempt in self._launcher.attempts():
            if attempt.exit_code is None and keys.get(attempt.stage) != attempt.key:
                self._launcher.stop(attempt.stage, attempt.number, "the settings have changed")
        if cached := [s.name for s in self._part if s.name in committed and s.program != "weights"]:
            say(f"finished before, skipped: {', '.join(cached)}")

    def _run(self) -> int:
        try:
            code = self._loop()
        except Stopped as stopped:
            return self._interrupted(stopped.signum)
        except (UsageError, DataError) as error:
            self._end("failed", str(error))
            raise
        except TemporaryError as error:
            self._launcher.leave()
            if self._file.manifest.state == "running":
                self._tell(str(error), state="interrupted")
            raise
        except BaseException:
            self._launcher.leave()
            raise
        return code

    def _loop(self) -> int:
        while True:
            code = self._patiently(self._tick, self._tell)
            if code is not None:
                return code
            time.sleep(_TICK.after(time.monotonic() - self._moved))

    def _patiently(self, act: Callable[[], int | None], tell: Callable[[str], None] = lambda _: None) -> int | None:
        """Do it, again and again for a while if the store or the cluster is away, which is said, and told."""
        troubled = None
        while True:
            try:
                return act()
            except LeaseLost:
                raise
            except TemporaryError as error:
                troubled = troubled or time.monotonic()
                if time.monotonic() - troubled >= self._policy.patience_s:
                    raise
                say(f"trying again: {error}")
                tell(f"trying again: {error}")
                time.sleep(_TROUBLED_S)

    def _tell(self, reason: str, state: State = "running") -> None:
        """Let the status of a run that goes on say it, if the store takes it."""
        if (state, reason) != ("running", self._file.manifest.reason):
            with suppress(TemporaryError):
                self._file.end(state, reason)

    def _end(self, state: State, reason: str) -> None:
        """Write how the run ended and remove what is left of it; from here on it is not interrupted."""
        handle(signal.SIG_IGN)
        self._report.write(self._file.manifest.standing(state, reason), self._finished)
        self._file.end(state, reason)
        self._store.delete(cancel_key(self._request.run))
        self._patiently(self._launcher.close)

    def _tick(self) -> int | None:
        """Observe, plan, apply; an exit code once the run has ended."""
        if self._is_cancelled():
            self._cancel()
            return int(ExitCode.INTERRUPTED)
        observed = self._observe()
        for action in plan(self._part, observed, time.monotonic(), self._policy, used=self._used):
            code = self._apply(action)
            if code is not None:
                return code
        self._tidy()
        self._tell("")
        self._report.refresh(self._file.manifest, self._finished, time.monotonic(), self._moved)
        return None

    def _tidy(self) -> None:
        """What can wait until the next stage has been started."""
        self._launcher.tidy()
        while self._prunable:
            _prune(self._store, self._prunable.pop())

    def _observe(self) -> Observed:
        keys = self._file.manifest.stages
        attempts = tuple(a for a in self._launcher.attempts() if keys.get(a.stage) == a.key)  # none of other settings
        seen = [(attempt.stage, attempt.number, attempt.exit_code) for attempt in attempts]
        if seen != self._seen:
            self._seen, self._moved = seen, time.monotonic()
        running = [Running(stage=a.stage, attempt=a.number, where=a.where, waits=a.waits)
                   for a in attempts if a.exit_code is None]  # fmt: skip
        moved = running != self._file.manifest.running
        self._file.manifest.running = running
        recorded = {(record.stage, record.attempt) for record in self._file.manifest.attempts}
        for attempt in attempts:
            if attempt.exit_code is not None and (attempt.stage, attempt.number) not in recorded:
                self._ended(attempt)
                moved = False  # it is saved
        if moved:
            self._file.save()
        return Observed(frozenset(self._finished), attempts)

    def _ended(self, attempt: Attempt) -> None:
        stage = find_stage(self._pipeline, attempt.stage)
        commit = read_commit(self._store, stage.ref)
        if commit is not None and verify_commit(self._store, commit):
            self._finished.add(stage.name)
            self._prunable.append(stage)
            say(f"{stage.name}  finished in {commit.seconds:.1f} s")
        else:
            verb = "ended" if failure_kind(attempt.exit_code) == "disruption" else "failed"
            say(f"{stage.name}  attempt {attempt.number} {verb}: {attempt.reason or describe_exit(attempt.exit_code)}")
        self._file.manifest.attempts.append(AttemptRecord.of(attempt, finished=stage.name in self._finished))
        self._file.save()

    def _apply(self, action: Action) -> int | None:
        match action:
            case Start(name, attempt):
                say(f"{name}  starts")
                stage = find_stage(self._pipeline, name)
                self._launcher.start(stage.spec(self._request.run, attempt, self._store.uri))
            case Kill(name, attempt, reason, exit_code):
                self._launcher.stop(name, attempt, reason, exit_code)
            case Fail(_, reason, exit_code):
                print(f"isc-jobs: {plain(reason)}", file=sys.stderr, flush=True)
                self._end("failed", reason)
                return exit_code
            case Finish():
                self._tidy()
                self._end("succeeded", "")
                for line in summary_lines(self._store, self._request.run, self._part):
                    say(line)
                return int(ExitCode.OK)
        return None

    def _is_cancelled(self) -> bool:
        """Now and then: prolong the lease, see whether somebody wishes the run to end."""
        if time.monotonic() - self._watched < _WATCH_S:
            return False
        self._watched = time.monotonic()
        self._store.hold()
        return self._store.stat(cancel_key(self._request.run)) is not None

    def _cancel(self) -> None:
        self._launcher.stop_all("the run is cancelled")
        self._observe()
        self._end("cancelled", "cancelled")
        say(f"run {self._request.run} is cancelled; what is finished stays")

    def _interrupted(self, signum: int) -> int:
        """Ctrl-C ends the stages; SIGTERM, as when a node is drained, only those that cannot go on alone."""
        handle(signal.SIG_IGN)
        if signum == signal.SIGINT:
            say("interrupted: ending the stages, which write their checkpoints")
            self._launcher.stop_all("the controller was interrupted")
        else:
            self._launcher.leave()
        self._observe()
        self._file.end("interrupted", signal.Signals(signum).name)
        with suppress(TemporaryError):
            self._report.write(self._file.manifest, self._finished)
        if signum == signal.SIGINT:
            self._launcher.close()
        say(f"run it again, or `isc-jobs resume {self._request.run} --store {self._store.uri}`, to go on")
        return int(ExitCode.INTERRUPTED if signum == signal.SIGINT else ExitCode.TERMINATED)


def _prune(store: Store, stage: Stage) -> None:
    """Mid-stage checkpoints of a finished stage are of no more use."""
    for info in list(store.list(f"checkpoints/{stage.key}/")):
        store.delete(info.key)


def say(line: str) -> None:
    """A line of progress."""
    print(plain(line), flush=True)
