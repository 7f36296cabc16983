"""Checkpoints that a training does not wait for: it stands still for a copy, the rest is a thread's work."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from isc_jobs.spec.errors import IscJobsError
from isc_jobs.stages.runner import Context
from isc_jobs.store.checkpoints import KEPT, prune, save_checkpoint
from isc_jobs.training.checkpoint import save_tensors
from isc_jobs.training.host_copy import HostCopy

STATE = "state.pt"  # the file of a checkpoint


class CheckpointWriter:
    """Writes, uploads and prunes checkpoints of rank 0, one at a time; leaving the context waits for the last."""

    def __init__(self, ctx: Context) -> None:
        """Nothing is begun."""
        self._ctx, self._copy = ctx, HostCopy()
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._underway: tuple[int, Future[None]] | None = None  # step

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """What writing the last one met is said, not raised: the training has ended, or what ended it is raised."""
        with self._thread:
            try:
                self.wait()
            except (IscJobsError, OSError, RuntimeError) as error:
                self._ctx.log(f"the last checkpoint was not written: {error}")

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Copy the state and begin to write it, once the one before is written; raises what writing that met."""
        if not self._ctx.is_main:
            return
        if self._underway is not None and not self._underway[1].done():
            self._ctx.log(f"waits for the checkpoint of step {self._underway[0]}, which is still being written")
        self.wait()
        self._underway = step, self._thread.submit(self._write, step, self._copy.take(state))

    def check(self) -> None:
        """Raise what writing met, if it has ended."""
        if self._underway is not None and self._underway[1].done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written; raise what writing met."""
        if self._underway is not None:
            (_, writing), self._underway = self._underway, None
            writing.result()

    def _write(self, step: int, state: dict[str, Any]) -> None:
        folder = self._ctx.work / "checkpoint"
        folder.mkdir(exist_ok=True)
        save_tensors(state, folder / STATE)
        save_checkpoint(self._ctx.store, self._ctx.spec.key, step, folder)
        prune(self._ctx.store, self._ctx.spec.key, KEPT)
