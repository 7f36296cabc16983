"""The port to whatever runs stages: processes of this machine, or a cluster's pods."""

from typing import Protocol

from isc_jobs.controller.plan import Attempt
from isc_jobs.spec.errors import ExitCode
from isc_jobs.spec.stage import StageSpec


class Launcher(Protocol):
    """Starts attempts, tells of them, ends them, and keeps their logs in the store."""

    def start(self, spec: StageSpec) -> None:
        """Start an attempt, once: an attempt of this name and specification that is there already is taken over."""

    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts that are known, in the order of their numbers. Of an ended one nothing works any more."""

    def tidy(self) -> None:
        """Bring the logs of ended attempts into the store and remove what is left of them."""

    def stop(self, stage: str, number: int, reason: str, exit_code: int = ExitCode.TERMINATED) -> None:
        """End an attempt, with time for a checkpoint; nothing happens if it has ended. It counts as this exit code."""

    def stop_all(self, reason: str) -> None:
        """End everything of the run."""

    def leave(self) -> None:
        """The controller goes and the run does not end: end what cannot outlive the controller."""

    def close(self) -> None:
        """The run has ended: remove all that is left of it."""
