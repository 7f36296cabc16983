"""All shards that a training reads, on this machine before its first step: it draws from all of them at once."""

import os
import time
from collections import deque
from collections.abc import Sequence

from isc_jobs.spec.errors import Terminated
from isc_jobs.stages.runner import Context
from isc_jobs.store.artifacts import Artifact
from isc_jobs.training.distributed import World, any_rank

_TURN_S = 60.0  # between words of the ranks, which lose patience with one another after minutes


def fetch_shards(ctx: Context, data: Artifact, shards: Sequence[str], world: World) -> None:
    """Fetch and verify the files, each once a machine; its processes share the work. Says how far it is.

    Raises Terminated if a stop is requested, and DataError if a shard is damaged.
    """
    local, processes = (int(os.environ.get(name, default)) for name, default in
                        (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")))  # fmt: skip
    waiting = deque(shards)
    waiting.rotate(-local * len(shards) // processes)  # each begins elsewhere, and finds the others' done
    report = ctx.counter(f"{ctx.spec.stage} shards") if local == 0 else None
    while any_rank(bool(waiting), world):
        until = time.monotonic() + _TURN_S
        while waiting and time.monotonic() < until and not ctx.stop_requested:
            data.path(waiting.popleft())
            if report is not None and waiting:
                report(sum(map(data.is_noted, shards)), len(shards))
        if report is not None and not waiting:
            report(len(shards) - 1, len(shards))  # a sign of life while other machines fetch
        if any_rank(ctx.stop_requested, world):
            raise Terminated("stopped while the shards were fetched, before the first step: run again")
