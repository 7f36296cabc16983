"""What a controller tells Prometheus of its run, its own and its stages' numbers: docs/monitoring.md lists them."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from isc_jobs.controller.manifest import State
from isc_jobs.controller.plan import Kind
from isc_jobs.spec.errors import UsageError

_KINDS = ("finished", *get_args(Kind))
_STAGE_STATES = ("waiting", "running", "finished", "failed", "interrupted", "left out")
# Of a running stage, by what its progress calls it.
_PROGRESS = {
    "step": ("isc_jobs_stage_steps_done", "steps or pictures that are done"),
    "total": ("isc_jobs_stage_steps", "steps or pictures in all"),
    "rate": ("isc_jobs_stage_steps_per_second", "how fast they get done"),
    "eta_s": ("isc_jobs_stage_seconds_left", "as its progress says"),
    "loss": ("isc_jobs_training_loss", "of the last step that was told"),
    "lr": ("isc_jobs_training_learning_rate", "of the last step that was told"),
}


def serve(metrics: "Metrics", port: int) -> None:
    """Answer Prometheus at this port of all addresses from now on; raises UsageError if it is taken."""
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        start_http_server(port, registry=registry)
    except OSError as error:
        raise UsageError(f"--metrics-port {port}: {error.strerror or error}: choose another") from error


class Metrics:
    """A collector of the status that the run's page shows."""

    def __init__(self) -> None:
        """Nothing is known yet, and nobody has asked."""
        self._status: Mapping[str, Any] | None = None
        self._asked, self._told_the_end = False, threading.Event()

    def show(self, status: Mapping[str, Any]) -> None:
        """From here on this is answered."""
        self._status = status

    def linger(self, seconds: float) -> None:
        """If somebody asks, stay until he has heard how the run ended, but no longer than this."""
        if self._asked and self._has_ended():
            self._told_the_end.wait(seconds)

    def _has_ended(self) -> bool:
        return self._status is not None and self._status["state"] != "running"

    def collect(self) -> Iterator[Any]:
        """All metric families, for the client library."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        if self._status is None:
            return
        self._asked = True
        if self._has_ended():
            self._told_the_end.set()
        run, stages = self._status["run"], self._status["stages"]
        yield _states("isc_jobs_run_state", "1 for the state that the run is in", [((run,), self._status["state"])],
                      ("run",), get_args(State))  # fmt: skip
        yield _states("isc_jobs_stage_state", "1 for the state that the stage is in",
                      [((run, stage["stage"]), stage["state"]) for stage in stages], ("run", "stage"),
                      _STAGE_STATES)  # fmt: skip
        waits = GaugeMetricFamily("isc_jobs_stage_waits", "1 while pods of the stage do not run yet",
                                  labels=("run", "stage"))  # fmt: skip
        took = GaugeMetricFamily("isc_jobs_stage_duration_seconds", "of a finished stage", labels=("run", "stage"))
        ended = CounterMetricFamily("isc_jobs_attempts", "attempts that have ended", labels=("run", "stage", "kind"))
        for stage in stages:
            waits.add_metric((run, stage["stage"]), float(bool(stage.get("waits"))))
            if "seconds" in stage:
                took.add_metric((run, stage["stage"]), stage["seconds"])
            kinds = [record["kind"] for record in stage["attempts"]]
            for kind in _KINDS:  # 0 too: what grows from nothing is no increase to Prometheus
                ended.add_metric((run, stage["stage"], kind), kinds.count(kind))
        yield from (waits, took, ended)
        for key, (name, text) in _PROGRESS.items():
            family = GaugeMetricFamily(name, text, labels=("run", "stage"))
            for stage in stages:
                value = (stage.get("progress") or {}).get(key)
                if value is not None:
                    family.add_metric((run, stage["stage"]), value)
            yield family


def _states(
    name: str, text: str, found: Iterable[tuple[tuple[str, ...], str]], labels: tuple[str, ...], states: Iterable[str]
) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=(*labels, "state"))
    for values, state in found:
        for known in states:
            family.add_metric((*values, known), float(known == state))
    return family
