"""A launcher without processes: attempts run until a test ends them."""

from dataclasses import replace

from isc_jobs.controller.attempts import claim, keep_logs
from isc_jobs.controller.plan import Attempt
from isc_jobs.spec.errors import TemporaryError
from isc_jobs.spec.stage import StageSpec
from isc_jobs.store import Store


class FakeLauncher:
    """Keeps the promises that test_launcher.py holds all launchers to."""

    def __init__(self, store: Store) -> None:
        self.known: dict[tuple[str, int], Attempt] = {}
        self.specs: dict[tuple[str, int], StageSpec] = {}
        self.away = 0  # how many times attempts() finds the cluster away
        self.left = self.closed = False
        self._store = store

    def start(self, spec: StageSpec) -> None:
        claim(self._store, spec)
        name = (spec.stage, spec.attempt)
        self.specs[name] = spec
        self.known.setdefault(name, Attempt(stage=spec.stage, number=spec.attempt, key=spec.key, exit_code=None,
                                            sign_of_life=1e12))  # fmt: skip

    def attempts(self) -> tuple[Attempt, ...]:
        if self.away > 0:
            self.away -= 1
            raise TemporaryError("the cluster does not answer")
        return tuple(self.known.values())

    def end(self, stage: str, number: int, exit_code: int, reason: str = "", pod: str = "", evidence: str = "") -> None:
        """The attempt ends of itself."""
        name = (stage, number)
        self.known[name] = replace(self.known[name], exit_code=exit_code, reason=reason, pod=pod, evidence=evidence)
        keep_logs(self._store, self.specs[name], self.known[name], {0: b""})

    def tidy(self) -> None:
        """Nothing is left to do."""

    def stop(self, stage: str, number: int, reason: str, exit_code: int = 143) -> None:
        if (attempt := self.known.get((stage, number))) is not None and attempt.exit_code is None:
            self.end(stage, number, exit_code, reason)

    def stop_all(self, reason: str) -> None:
        for stage, number in list(self.known):
            self.stop(stage, number, reason)

    def leave(self) -> None:
        self.left = True

    def close(self) -> None:
        self.stop_all("the run has ended")
        self.closed = True
