"""The launcher of a cluster: an attempt is a ConfigMap with its specification and a Job or PyTorchJob."""

import gzip
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from isc_jobs.controller.kubernetes.api import AlreadyExists, Api
from isc_jobs.controller.manifests import (
    LABEL,
    Object,
    attempt_name,
    attempt_objects,
    run_name,
    run_owner,
    same_specification,
)  # fmt: skip
from isc_jobs.controller.plan import Attempt
from isc_jobs.controller.pods import Outcome, outcome, waiting
from isc_jobs.spec.errors import ExitCode, IscJobsError, UsageError
from isc_jobs.spec.settings import Cluster
from isc_jobs.spec.stage import StageSpec
from isc_jobs.store import Store

_LIST_S = 30.0  # a list at least this often, whatever the watch says
_EXPLAIN_S = 10.0  # a pending attempt is looked at this often
_FOLLOW_S = 5.0  # and the progress of a running one
_WATCH_S = 240


@dataclass
class _Known:
    spec: StageSpec
    sign_of_life: float = field(default_factory=time.monotonic)
    explained: float = 0.0
    followed: float = 0.0
    progress: str = ""  # entity tag of progress.json
    seen: set[str] = field(default_factory=set)  # uids of pods
    ended: Attempt | None = None


class KubernetesLauncher:
    """Runs the attempts of one run in a namespace."""

    def __init__(
        self, store: Store, run: str, cluster: Cluster, api: Api, echo: Callable[[str], None],
        keep_alive: Callable[[], None],
    ) -> None:  # fmt: skip
        """Take over what an earlier controller of the run left; ``keep_alive`` is called while pods end."""
        self._store, self._run, self._cluster, self._api, self._echo = store, run, cluster, api, echo
        self._keep_alive = keep_alive
        self._labels = f"{LABEL}/run={run}"
        self._owner = self._own(run_owner(run, cluster))
        self._known: dict[tuple[str, int], _Known] = {}
        self._pods: list[Object] = []
        self._changed = threading.Event()
        self._changed.set()
        self._listed = 0.0
        for item in api.list("v1", "ConfigMap", labels=f"{self._labels},{LABEL}/attempt"):
            self._know(StageSpec.model_validate_json(item["data"]["spec.json"]))
        threading.Thread(target=self._watch, daemon=True).start()

    def start(self, spec: StageSpec) -> None:
        """Create the attempt's objects; one that is there already must hold the same specification."""
        self._store.put(f"{self._prefix(spec)}/spec.json", spec.model_dump_json(indent=1).encode())
        for item in attempt_objects(spec, self._cluster):
            owned = item | {"metadata": item["metadata"] | {"ownerReferences": [self._owner]}}
            try:
                self._api.create(owned)
            except AlreadyExists:
                found = self._api.get("v1", "ConfigMap", attempt_name(spec))
                if found is None or not same_specification(found, spec):
                    raise UsageError(f"{attempt_name(spec)} is there with another specification: delete it") from None
        self._know(spec)
        self._changed.set()

    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts that are known; lists pods when something changed."""
        if self._changed.is_set() or time.monotonic() - self._listed > _LIST_S:
            self._changed.clear()
            self._listed = time.monotonic()
            self._pods = self._api.list("v1", "Pod", labels=self._labels)
        return tuple(self._look(self._known[key]) for key in sorted(self._known, key=lambda key: key[1]))

    def stop(self, stage: str, number: int, reason: str) -> None:
        """Delete the attempt's objects and wait for its pods, whose last words are kept."""
        known = self._known.get((stage, number))
        if known is None or known.ended is not None:
            return
        self._echo(f"{stage}  ending attempt {number}: {reason}")
        self._end(known, Outcome(int(ExitCode.TERMINATED), reason))

    def stop_all(self, reason: str) -> None:
        """End everything of the run."""
        for stage, number in list(self._known):
            self.stop(stage, number, reason)

    def _know(self, spec: StageSpec) -> None:
        self._known.setdefault((spec.stage, spec.attempt), _Known(spec))

    def _own(self, item: Object) -> Object:
        """The run's ConfigMap as an owner reference."""
        try:
            made = self._api.create(item)
        except AlreadyExists:
            found = self._api.get("v1", "ConfigMap", run_name(self._run))
            if found is None:
                raise
            made = found
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": made["metadata"]["name"],
                "uid": made["metadata"]["uid"], "controller": False, "blockOwnerDeletion": False}  # fmt: skip

    def _watch(self) -> None:
        """Wakes the loop; the list is the truth."""
        while True:
            try:
                for _ in self._api.watch_pods(self._labels, _WATCH_S):
                    self._changed.set()
            except IscJobsError:
                time.sleep(5)
            self._changed.set()

    def _look(self, known: _Known) -> Attempt:
        if known.ended is not None:
            return known.ended
        pods = self._pods_of(known.spec)
        found = outcome(pods, self._expected(known.spec)) or self._vanished(known, pods)
        if found is None and (not pods or any(pod["status"].get("phase") == "Pending" for pod in pods)):
            found = self._explain(known, pods)
        if found is not None:
            return self._end(known, found)
        self._follow(known)
        return Attempt(stage=known.spec.stage, number=known.spec.attempt, key=known.spec.key, exit_code=None,
                       sign_of_life=known.sign_of_life)  # fmt: skip

    def _expected(self, spec: StageSpec) -> int:
        return self._cluster.training_pods if spec.program == "train" else 1

    def _pods_of(self, spec: StageSpec) -> list[Object]:
        wanted = {f"{LABEL}/stage": spec.stage, f"{LABEL}/attempt": str(spec.attempt)}
        return [pod for pod in self._pods if wanted.items() <= pod["metadata"]["labels"].items()]

    def _vanished(self, known: _Known, pods: list[Object]) -> Outcome | None:
        """A pod that was there and has gone is a disruption: the whole attempt is begun anew."""
        uids = {pod["metadata"]["uid"] for pod in pods}
        if known.seen - uids:
            return Outcome(int(ExitCode.TERMINATED), "a pod was deleted")
        known.seen |= uids
        return None

    def _explain(self, known: _Known, pods: list[Object]) -> Outcome | None:
        """Say why nothing runs yet; permanent causes end the attempt, others after ``pending_seconds``."""
        now = time.monotonic()
        if now - max(known.explained, known.sign_of_life) < _EXPLAIN_S:
            return None
        known.explained = now
        name = attempt_name(known.spec)
        events = [] if pods else self._api.list("v1", "Event", fields=f"involvedObject.name={name}")
        cause = waiting(pods, events)
        if cause is None:
            return None
        self._echo(f"{known.spec.stage}  waits: {cause.reason}")
        if cause.permanent or now - known.sign_of_life > self._cluster.pending_seconds:
            return Outcome(int(ExitCode.USAGE), cause.reason)
        return None

    def _follow(self, known: _Known) -> None:
        """Echo progress, which is the sign of life."""
        key = f"{self._prefix(known.spec)}/progress.json"
        if time.monotonic() - known.followed < _FOLLOW_S:
            return
        known.followed = time.monotonic()
        info = self._store.stat(key)
        if info is None or info.etag == known.progress:
            return
        known.progress, known.sign_of_life = info.etag, time.monotonic()
        state = json.loads(self._store.get(key)[0])
        pace = f"  {state['rate']:.1f}/s  {state['eta_s']:.0f} s left" if state["rate"] else ""
        self._echo(f"{known.spec.stage}  {state['step']}/{state['total']}{pace}")

    def _end(self, known: _Known, found: Outcome) -> Attempt:
        """Keep logs and reason, delete the attempt's objects, wait until its pods have gone."""
        spec, name = known.spec, attempt_name(known.spec)
        logs = self._logs(spec)
        version, kind = ("kubeflow.org/v1", "PyTorchJob") if spec.program == "train" else ("batch/v1", "Job")
        self._api.delete(version, kind, name)
        deadline = time.monotonic() + self._cluster.grace_seconds + 30
        while time.monotonic() < deadline and self._running(spec):
            logs |= self._logs(spec)
            self._keep_alive()
            time.sleep(1)
        self._api.delete("v1", "ConfigMap", name)
        for rank, (_, text) in enumerate(sorted(logs.items())):
            self._store.put(f"{self._prefix(spec)}/log-{rank}.txt.gz", gzip.compress(text, mtime=0))
        content = json.dumps({"exit_code": found.exit_code, "reason": found.reason}).encode()
        self._store.put(f"{self._prefix(spec)}/termination.json", content)
        known.ended = Attempt(
            stage=spec.stage,
            number=spec.attempt,
            exit_code=found.exit_code,
            reason=found.reason,
            ended=time.monotonic(),
        )
        return known.ended

    def _running(self, spec: StageSpec) -> bool:
        self._pods = self._api.list("v1", "Pod", labels=self._labels)
        return bool(self._pods_of(spec))

    def _logs(self, spec: StageSpec) -> dict[str, bytes]:
        """By pod, whose names sort as ranks do: master before workers."""
        names = (pod["metadata"]["name"] for pod in self._pods_of(spec))
        found = {name: self._api.pod_log(name) for name in names}
        return {name: text for name, text in found.items() if text is not None}

    def _prefix(self, spec: StageSpec) -> str:
        return f"runs/{self._run}/{spec.stage}/attempt-{spec.attempt}"
