"""What attempts have said, kept or live, once or as it comes."""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from isc_jobs.commands.runs import open_named_store
from isc_jobs.spec.errors import ExitCode
from isc_jobs.spec.plain import plain_lines

if TYPE_CHECKING:
    from isc_jobs.controller.request import Request
    from isc_jobs.store import Store

_LOOK_S = {"local": 0.5, "kubernetes": 3.0}  # the API server answers with the whole log


def logs(arguments: argparse.Namespace) -> int:
    """Print the log of an attempt: as kept, or while it runs from its pod or this machine."""
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.controller.status import kept_log, latest_attempt, no_log

    store = open_named_store(arguments)
    run, stage = arguments.run, arguments.stage
    request = read_manifest(store, run)[0].request
    number = 0 if stage == "controller" else arguments.attempt or latest_attempt(store, run, stage)
    if arguments.follow:
        _Follower(store, request, stage, arguments.rank).follow(number)
        return int(ExitCode.OK)
    rank = arguments.rank or 0
    log = kept_log(store, run, stage, number, rank)
    if log is None:
        log = _live(store, request, stage, number).get(rank)
    if log is None:
        raise no_log(store, run, stage, number, rank)
    sys.stdout.write(plain_lines(log))
    return int(ExitCode.OK)


def _live(store: "Store", request: "Request", stage: str, number: int) -> dict[int, str]:
    """What the processes of an attempt have said so far, by rank, where it runs."""
    if request.launcher == "local":
        from isc_jobs.controller import local

        return {rank: _text(said) for rank, said in local.live_log(store, request.run, stage, number).items()}
    from isc_jobs.controller.attempts import read_spec
    from isc_jobs.controller.kubernetes.api import Api
    from isc_jobs.controller.kubernetes.logs import controller_log, live_log

    cluster = request.checked_settings().cluster
    api = Api(cluster.namespace)
    if stage == "controller":
        said = controller_log(api, request.run)
        return {} if said is None else {0: _text(said)}
    return live_log(api, read_spec(store, request.run, stage, number), cluster)


def _text(said: bytes) -> str:
    return said.decode("utf-8", "replace")


class _Follower:
    """Prints what the ranks of a stage's attempts say, one attempt after the other."""

    def __init__(self, store: "Store", request: "Request", stage: str, rank: int | None) -> None:
        self._store, self._request, self._stage, self._rank = store, request, stage, rank
        self._shown: dict[int, int] = {}  # characters of each rank's log

    def follow(self, number: int) -> None:
        """From this attempt on, until the stage is finished or the run has ended."""
        from isc_jobs.controller.status import is_over, kept_logs, latest_attempt

        run = self._request.run
        while True:
            over = is_over(self._store, run, self._stage, number)  # before the logs are read: then these are whole
            said = kept_logs(self._store, run, self._stage, number) if over else {}
            self._print(number, said or _live(self._store, self._request, self._stage, number), whole=over)
            if not over:
                time.sleep(_LOOK_S[self._request.launcher])
            elif self._stage != "controller" and latest_attempt(self._store, run, self._stage) > number:
                number, self._shown = number + 1, {}
            elif not self._comes():
                return
            else:
                time.sleep(_LOOK_S[self._request.launcher])

    def _comes(self) -> bool:
        """Whether another attempt may follow."""
        from isc_jobs.controller.status import run_status

        status = run_status(self._store, self._request.run)
        states = {stage["stage"]: stage["state"] for stage in status["stages"]}
        return bool(status["controlled"]) and states.get(self._stage) != "finished"

    def _print(self, number: int, said: dict[int, str], *, whole: bool) -> None:
        for rank, text in sorted(said.items()):
            if self._rank not in {None, rank}:
                continue
            end = len(text) if whole else text.rfind("\n") + 1
            new = text[self._shown.get(rank, 0) : end]
            self._shown[rank] = max(end, self._shown.get(rank, 0))
            name = "" if self._stage == "controller" else f"{self._stage} {number}.{rank} | "
            for line in plain_lines(new).splitlines():
                print(f"{name}{line}", flush=True)
