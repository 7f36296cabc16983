"""How loader processes begin, and when they end."""

import multiprocessing
import os
import signal
from types import FrameType

import torch


def begin_worker(_: int) -> None:
    """A loader process uses one thread, and ends with the process it loads for.

    SIGTERM, which may come to the whole group, is that process's business: it needs its loaders to end the step.
    """
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGTERM, _end_if_orphaned)


def _end_if_orphaned(_signum: int, _frame: FrameType | None) -> None:
    parent = multiprocessing.parent_process()
    if parent is None or os.getppid() != parent.pid:
        os._exit(0)
