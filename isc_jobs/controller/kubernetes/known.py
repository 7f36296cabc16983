"""What a controller knows of an attempt in a cluster, and what the store tells of it while it runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from isc_jobs.controller.attempts import read_progress
from isc_jobs.controller.pace import Pace
from isc_jobs.controller.plan import Attempt
from isc_jobs.controller.pods import Outcome, where
from isc_jobs.controller.podspec import Object
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.store import Store
from isc_jobs.store.artifacts import read_commit

# How often the store is asked, for progress by the attempt's age, for a commit that may come by the time without news.
_FOLLOW = Pace(0.05, 5.0, 30.0)
_COMMIT = Pace(0.02, 0.5, 5.0)
_SOON_S = 10.0


@dataclass
class KnownAttempt:
    """Times are seconds of the launcher's clock."""

    spec: StageSpec
    since: float
    sign_of_life: float
    looked: float = -math.inf  # for why it waits
    said: tuple[str, float] = ("", 0.0)  # why it waits, and when
    followed: float = -math.inf
    progress: str = ""  # tag of what was read last
    left_s: float = 0.0  # as the progress says, or 0 if nobody knows,
    news: float = -math.inf  # and when it said so
    asked: float = -math.inf  # for the commit
    seen: dict[str, str] = field(default_factory=dict)  # names of pods by uid
    mute: float | None = None  # since when its logs cannot be read
    verdict: Outcome | None = None  # how it ends, while its pods are being ended,
    ending: float = math.inf  # and since when they are
    ended: Attempt | None = None
    tidied: bool = False

    def has_committed(self, store: Store, now: float) -> bool:
        """Whether the attempt has committed its output, which is before its pods end.

        The store is asked often only when that may be near.
        """
        if not self.seen or now - self.asked < self._commit_pace(now):
            return False
        self.asked = now
        commit = read_commit(store, InputRef(stage=self.spec.stage, key=self.spec.key))
        return commit is not None and (commit.run, commit.attempt) == (self.spec.run, self.spec.attempt)

    def follow(self, store: Store, now: float) -> str | None:
        """A line of progress if there is some, which is the sign of life."""
        if now - self.followed < _FOLLOW.after(now - self.since):
            return None
        self.followed = now
        state, tag = read_progress(store, self.spec.prefix)
        if state is None or tag == self.progress:
            return None
        self.progress, self.sign_of_life, self.left_s, self.news = tag, now, state["eta_s"], now
        pace = f"  {state['rate']:.1f}/s  {state['eta_s']:.0f} s left" if state["rate"] else ""
        return f"{self.spec.stage}  {state['step']}/{state['total']}{pace}"

    def living(self, pods: Sequence[Object], sign_of_life: float, waits: str) -> Attempt:
        """As it runs, or waits for this."""
        return Attempt(stage=self.spec.stage, number=self.spec.attempt, key=self.spec.key, exit_code=None,
                       sign_of_life=sign_of_life, where=where(pods), waits=waits)  # fmt: skip

    def attempt(self, found: Outcome, now: float) -> Attempt:
        """As it ended."""
        return Attempt(stage=self.spec.stage, number=self.spec.attempt, key=self.spec.key, exit_code=found.exit_code,
                       reason=found.reason, pod=found.pod, evidence=found.evidence, ended=now)  # fmt: skip

    def _commit_pace(self, now: float) -> float:
        silent = now - max(self.news, self.since)
        return _FOLLOW.after(now - self.since) if self.left_s - silent >= _SOON_S else _COMMIT.after(silent)
