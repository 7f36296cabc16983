"""What a test does beside what it tests."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def beside(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """Again and again in a thread, so long apart; what it raises is raised at the end."""
    done = threading.Event()

    def again() -> None:
        while not done.wait(seconds):
            look()

    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(again)
        try:
            yield
        finally:
            done.set()
        looking.result()
