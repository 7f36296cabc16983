"""Processes that a stage works with and loses: another attempt may fare better, whatever error torch makes of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from isc_jobs.spec.errors import TemporaryError

_LOADER = re.compile(r"DataLoader worker \(pid\S* \d+[^)]*\)[^.\n]*")  # torch has no class of error for it,
_RANK = re.compile(r"gloo/transport|gloo::|\[gloo\]|Gloo \w+ failed")  # and none for gloo's


@contextmanager
def lost_processes() -> Iterator[None]:
    """Raises TemporaryError where torch found that a loader process or another rank was lost.

    Of a loader process that is true wherever the main thread is: torch raises it as soon as the process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        loader = _LOADER.search(str(error))
        if loader:
            raise TemporaryError(
                f"{loader[0].strip()}: it was killed, by want of memory or shared memory or by hand; fewer "
                "compute.loader_workers need less"
            ) from error
        if isinstance(error, distributed.DistError) or _RANK.search(str(error)):
            raise TemporaryError(
                f"another process of this training does not answer any more ({' '.join(str(error).split())[:160]}): it "
                "was killed, or hangs; see the logs of all ranks"
            ) from error
        raise
