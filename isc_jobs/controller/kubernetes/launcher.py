"""The launcher of a cluster: an attempt is a ConfigMap with its specification and a Job or PyTorchJob."""

import math
import threading
import time
from collections.abc import Callable

from isc_jobs.controller.attempts import claim, controller_log_key, keep_logs
from isc_jobs.controller.kubernetes.api import AlreadyExists, Api
from isc_jobs.controller.kubernetes.explain import explain
from isc_jobs.controller.kubernetes.known import KnownAttempt
from isc_jobs.controller.kubernetes.logs import controller_log, longer, pods_log
from isc_jobs.controller.lease import FencedStore
from isc_jobs.controller.manifests import (
    attempt_kind,
    attempt_name,
    attempt_objects,
    object_name,
    processes_per_pod,
    run_labels,
    run_name,
    run_owner,
    same_specification,
    specification,
    stage_pods,
)
from isc_jobs.controller.plan import Attempt
from isc_jobs.controller.pods import Outcome, is_over, is_running, outcome
from isc_jobs.controller.podspec import LABEL, Object
from isc_jobs.spec.errors import ExitCode, IscJobsError, TemporaryError, UsageError
from isc_jobs.spec.settings import Cluster
from isc_jobs.spec.stage import StageSpec

_LIST_S = 30.0  # a list at least this often, whatever the watch says
_EXPLAIN_S = 10.0  # a pending attempt is looked at this often
_REPEAT_S = 60.0  # and the same reason is said this often
_LOST_S = 900.0  # how long the next attempt waits for pods that do not go, as on a node that does not answer
_TIDY_S = 0.5  # between looks at pods that are about to end
_WATCH_S = 240


class KubernetesLauncher:
    """Runs the attempts of one run in a namespace."""

    def __init__(
        self, store: FencedStore, run: str, cluster: Cluster, api: Api, echo: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """Take over what an earlier controller of the run left."""
        self._store, self._run, self._cluster, self._api, self._echo = store, run, cluster, api, echo
        self._clock, self._sleep = clock, sleep
        self._labels = run_labels(run)
        self._owner = own(api, run, store.uri, cluster)
        self._known: dict[tuple[str, int], KnownAttempt] = {}
        self._pods: list[Object] = []
        self._changed = threading.Event()
        self._changed.set()
        self._listed = -math.inf
        self._gone = threading.Event()  # this controller
        for item in api.list("v1", "ConfigMap", labels=f"{self._labels},{LABEL}/attempt"):
            self._know(specification(item))
        threading.Thread(target=self._watch, daemon=True).start()

    def start(self, spec: StageSpec) -> None:
        """Create the attempt's objects; one that is there already must hold the same specification."""
        claim(self._store, spec)
        for item in attempt_objects(spec, self._cluster):
            owned = item | {"metadata": item["metadata"] | {"ownerReferences": [self._owner]}}
            self._store.hold()
            try:
                self._api.create(owned)
            except AlreadyExists:
                found = self._api.get("v1", "ConfigMap", attempt_name(spec))
                if found is None or not same_specification(found, spec):
                    raise UsageError(f"{attempt_name(spec)} is there with another specification: delete it") from None
        self._know(spec).looked = self._clock()
        self._changed.set()

    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts that are known; lists pods when something changed."""
        if self._changed.is_set() or self._clock() - self._listed > _LIST_S:
            self._changed.clear()
            self._listed = -math.inf  # until the list has come
            self._list_pods()
            self._end_strangers()
        return tuple(self._look(self._known[key]) for key in sorted(self._known, key=lambda key: key[1]))

    def tidy(self) -> None:
        """Keep logs of ended attempts once their pods have ended, delete their objects."""
        for known in self._known.values():
            if known.ended is not None and not known.tidied and self._is_over(known):
                self._store.hold()
                keep_logs(self._store, known.spec, known.ended, self._logs(known))
                self._delete(known.spec)
                self._forget(known)

    def stop(self, stage: str, number: int, reason: str, exit_code: int = ExitCode.TERMINATED) -> None:
        """Delete the attempt's objects and wait for its pods, whose last words are kept."""
        known = self._known.get((stage, number))
        if known is None or known.ended is not None:
            return
        self._echo(f"{stage}  ending attempt {number}: {reason}")
        self._end(known, Outcome(int(exit_code), reason))

    def stop_all(self, reason: str) -> None:
        """End everything of the run."""
        for stage, number in list(self._known):
            self.stop(stage, number, reason)

    def leave(self) -> None:
        """Pods go on; the run's next controller takes them over."""
        self._gone.set()
        running = [known.spec.stage for known in self._known.values() if known.ended is None]
        if running:
            self._echo(f"{', '.join(running)}  goes on in the cluster: resume takes it over, cancel ends it")

    def close(self) -> None:
        """Delete the ConfigMap that owns what is left of the run, its controller's Job included."""
        self.stop_all("the run has ended")
        while not all(known.tidied for known in self._known.values()):
            self._store.hold()
            self._list_pods()
            self.tidy()
            self._sleep(_TIDY_S)
        said = controller_log(self._api, self._run)
        if said is not None:
            self._store.put(controller_log_key(self._run), said)
        self._api.delete("v1", "ConfigMap", run_name(self._run))
        self._gone.set()

    def _know(self, spec: StageSpec) -> KnownAttempt:
        return self._known.setdefault((spec.stage, spec.attempt), KnownAttempt(spec, self._clock(), self._clock()))

    def _list_pods(self) -> None:
        self._pods = self._api.list("v1", "Pod", labels=self._labels)
        self._listed = self._clock()

    def _end_strangers(self) -> None:
        """A controller that has lost the run may yet have started something, which this one does not know."""
        labels = [pod["metadata"]["labels"] for pod in self._pods]
        for stage, number in {
            (of[f"{LABEL}/stage"], int(of[f"{LABEL}/attempt"])) for of in labels
        } - self._known.keys():
            found = self._api.get("v1", "ConfigMap", object_name(self._run, stage, number))
            if found is not None:
                self._know(specification(found))
                self.stop(stage, number, "it is of a controller that has lost the run")

    def _watch(self) -> None:
        """Wakes the loop; the list is the truth."""
        while not self._gone.is_set():
            try:
                for _ in self._api.watch_pods(self._labels, _WATCH_S):
                    self._changed.set()
            except IscJobsError:
                time.sleep(5)
            self._changed.set()

    def _look(self, known: KnownAttempt) -> Attempt:
        if known.ended is not None:
            return known.ended
        pods = self._pods_of(known.spec)
        found = known.verdict or self._vanished(known, pods) or outcome(pods, self._expected(known.spec))
        if found is None and known.has_committed(self._store, self._clock()):
            return self._ended(known, Outcome(0, ""))  # its pods are about to end
        started = is_running(pods, self._expected(known.spec))
        if found is None and not started:
            found = self._explain(known, pods)
        if found is not None and found.exit_code == ExitCode.TERMINATED:
            found = self._lost(found)
        if found is not None and is_over(pods, self._expected(known.spec)):
            return self._ended(known, found)
        if found is not None:
            return self._end(known, found, _LOST_S)
        line = known.follow(self._store, self._clock())
        if line is not None:
            self._echo(line)
        return known.living(pods, known.sign_of_life, "" if started else known.said[0])

    def _expected(self, spec: StageSpec) -> int:
        return stage_pods(spec, self._cluster).pods

    def _pods_of(self, spec: StageSpec) -> list[Object]:
        wanted = {f"{LABEL}/stage": spec.stage, f"{LABEL}/attempt": str(spec.attempt)}
        return [pod for pod in self._pods if wanted.items() <= pod["metadata"]["labels"].items()]

    def _is_over(self, known: KnownAttempt) -> bool:
        """Whether its pods have ended; those that do not in time are ended."""
        assert known.ended is not None
        late = self._clock() - known.ended.ended > self._cluster.grace_seconds
        return late or is_over(self._pods_of(known.spec), self._expected(known.spec))

    def _vanished(self, known: KnownAttempt, pods: list[Object]) -> Outcome | None:
        """A pod that was there and has gone is a disruption: the whole attempt is begun anew."""
        names = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in pods}
        gone = [name for uid, name in known.seen.items() if uid not in names]
        known.seen |= names
        if gone:
            return Outcome(int(ExitCode.TERMINATED), f"pod {gone[0]} was deleted", gone[0], "it is not there any more")
        return None

    def _lost(self, found: Outcome) -> Outcome:
        """The attempt was disrupted; if the run's ConfigMap was deleted, the whole run was."""
        if self._api.get("v1", "ConfigMap", run_name(self._run)) is not None:
            return found
        return Outcome(int(ExitCode.USAGE), f"ConfigMap {run_name(self._run)} was deleted, which ends the run")

    def _explain(self, known: KnownAttempt, pods: list[Object]) -> Outcome | None:
        """Say why nothing runs yet; permanent causes end the attempt, others after ``pending_seconds``."""
        now = known.sign_of_life = self._clock()  # what waits is not silent
        if now - known.looked < _EXPLAIN_S:
            return None
        known.looked = now
        cause = explain(self._api, known.spec, pods, self._expected(known.spec))
        if cause is None:
            kind = attempt_kind(known.spec)[1]
            return Outcome(int(ExitCode.TERMINATED), f"{kind} {attempt_name(known.spec)} was deleted")
        if cause.reason != known.said[0] or now - known.said[1] > _REPEAT_S:
            self._echo(f"{known.spec.stage}  waits: {cause.reason}")
            known.said = cause.reason, now
        if cause.permanent or now - known.since > self._cluster.pending_seconds:
            return Outcome(int(ExitCode.USAGE), cause.reason)
        return None

    def _end(self, known: KnownAttempt, found: Outcome, patience_s: float = 0.0) -> Attempt:
        """End the attempt's pods, wait until they have gone, keep what they said until then.

        Pods that do not go in time count as living for ``patience_s``: a node that does not answer may still run them.
        The ConfigMap goes last, so that a controller that follows this one at any moment waits for the pods too.
        """
        known.verdict, known.ending = found, min(known.ending, self._clock())
        logs = self._logs(known)
        keep_logs(self._store, known.spec, known.attempt(found, self._clock()), logs)
        self._delete(known.spec)
        deadline = self._clock() + self._cluster.grace_seconds + 30
        while self._clock() < deadline and self._pods_of(known.spec):
            self._store.hold()
            self._sleep(1)
            self._list_pods()
            logs = longer(logs, self._logs(known))
        left = [pod["metadata"]["name"] for pod in self._pods_of(known.spec)]
        if left and self._clock() - known.ending < patience_s:
            waits = f"pod {left[0]} has to end first: delete it or its node if that is lost"
            self._echo(f"{known.spec.stage}  waits: {waits}")
            return known.living(self._pods_of(known.spec), self._clock(), waits)
        keep_logs(self._store, known.spec, known.attempt(found, self._clock()), logs)
        self._forget(known)
        return self._ended(known, found)

    def _ended(self, known: KnownAttempt, found: Outcome) -> Attempt:
        known.ended = known.attempt(found, self._clock())
        return known.ended

    def _logs(self, known: KnownAttempt) -> dict[int, bytes]:
        """What its pods have said; for a lost node, whose logs nobody can read, the end does not wait for ever."""
        processes = processes_per_pod(known.spec, self._cluster)
        try:
            return pods_log(self._api, self._pods_of(known.spec), processes)
        except TemporaryError as error:
            known.mute = known.mute or self._clock()
            if self._clock() - known.mute <= self._cluster.grace_seconds:
                raise
            self._echo(f"{known.spec.stage}  log is left out, it cannot be read: {error}")
            return {}

    def _delete(self, spec: StageSpec) -> None:
        self._store.hold()
        self._api.delete(*attempt_kind(spec), attempt_name(spec))

    def _forget(self, known: KnownAttempt) -> None:
        self._api.delete("v1", "ConfigMap", attempt_name(known.spec))
        known.tidied = True


def own(api: Api, run: str, store: str, cluster: Cluster) -> Object:
    """The run's ConfigMap, made if it is not there, as an owner reference.

    Raises UsageError if a run of this name has another store.
    """
    try:
        made = api.create(run_owner(run, store, cluster))
    except AlreadyExists:
        found = api.get("v1", "ConfigMap", run_name(run))
        if found is None:
            raise
        kept = (found.get("data") or {}).get("store")
        if kept != store:
            raise UsageError(f"a run {run!r} of store {kept} is in {api.namespace}: choose another --run") from None
        made = found
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": made["metadata"]["name"],
            "uid": made["metadata"]["uid"], "controller": False, "blockOwnerDeletion": False}  # fmt: skip
