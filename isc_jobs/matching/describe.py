"""The process that describes pictures: a job on standard input, an answer to a file descriptor.

Batches end where they would have ended without an interruption, so a run that goes on makes the same bytes.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from isc_jobs.matching.chunks import Chunks
from isc_jobs.matching.describing import Job
from isc_jobs.spec.errors import IscJobsError, Terminated, of_file
from isc_jobs.spec.pipeline import PROGRAM_VERSIONS
from isc_jobs.spec.profile import load_settings
from isc_jobs.store.progress import Progress
from isc_jobs.training.inference import load_model
from isc_jobs.training.loaders import begin_worker
from isc_jobs.training.loop import autocast, choose_precision
from isc_jobs.training.lost_processes import lost_processes
from isc_jobs.vision.decode import BadImage, Encoded, Pixels
from isc_jobs.vision.folding import fold_batch_norms
from isc_jobs.vision.model import normalise
from isc_jobs.vision.resize import load_resized
from isc_jobs.vision.views import hard_view

_EDITED = "edited copies"


class _Task(NamedTuple):
    key: str
    path: str
    other: str = ""  # makes it an edited copy,
    seed: str = ""  # by this


class _Read(NamedTuple):
    """A picture as (s, s, 3), or why there is none."""

    key: str
    pixels: Pixels | None
    reason: str = ""
    lasting: bool = True  # the reason is in the bytes, not in the moment


class _Tasks(Dataset[_Read]):
    def __init__(self, tasks: list[_Task], size: int) -> None:
        self._tasks, self._size = tasks, size
        self._views = load_settings("isc21").trainings.v83.views

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, place: int) -> _Read:
        task = self._tasks[place]
        try:
            return _Read(task.key, self._pixels(task))
        except BadImage as error:
            return _Read(task.key, None, str(error))
        except OSError as error:
            return _Read(task.key, None, f"cannot be read: {error.strerror}", lasting=False)

    def _pixels(self, task: _Task) -> Pixels:
        if not task.other:
            return load_resized(Path(task.path).read_bytes(), self._size)
        picture, other = (Encoded(Path(path).read_bytes()) for path in (task.path, task.other))
        assert self._views is not None
        return hard_view(picture, lambda: other, self._size, self._views, np.random.default_rng(int(task.seed, 16)))


class _Describer:
    def __init__(self, job: Job) -> None:
        """Load the model; raises UsageError or DataError."""
        settings = load_settings("isc21")
        self._job, self._settings = job, settings.matching
        self._model, facts = load_model(Path(job.weights), job.arch, job.input_size)
        fold_batch_norms(self._model.backbone)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._precision = choose_precision("auto", self._device)
        self._model.to(self._device).to(memory_format=torch.channels_last)
        on_gpu = self._device.type == "cuda"
        self._size = facts.input_size
        self._batch = job.batch or (settings.extract.batch if on_gpu else self._settings.batch_on_cpu)
        # On a CPU the model is slower than decoding, and processes that wait for it take its threads' time.
        cores = len(os.sched_getaffinity(0))
        most = min(cores, settings.compute.loader_workers) if on_gpu else max(1, cores // 4)
        self._workers = most if job.workers is None else job.workers
        self.facts = asdict(facts) | {"precision": str(self._precision).removeprefix("torch.")}
        self.folder = Path(job.work) / _digest(self.facts, job.weights_sha256)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._chunks = Chunks(self.folder)
        self.unread: dict[str, str] = {}
        self._stop: list[int] = []
        signal.signal(signal.SIGTERM, self._request_stop)

    def _request_stop(self, signum: int, _frame: FrameType | None) -> None:
        self._stop.append(signum)

    def run(self) -> None:
        """Describe all sets; raises Terminated if a stop is requested, after keeping what is done."""
        for name, pictures in self._job.sets.items():
            self._describe_set(name, [_Task(key, path) for key, path in pictures])
        self._describe_set(_EDITED, [_Task(*edit) for edit in self._job.edits])

    def _describe_set(self, name: str, tasks: list[_Task]) -> None:
        missing = [task for task in tasks if task.key not in self._chunks]
        if not missing:
            return
        done = len(tasks) - len(missing)
        if done:
            print(f"{name}  {done:,} of {len(tasks):,} are described already", flush=True)
        report = Progress(name, lambda _: None)
        report(done, len(tasks))
        part = _Part(self._chunks)
        started = time.monotonic()
        for batch in self._loader(missing):
            part.add(batch, self._rows([read.pixels for read in batch if read.pixels is not None]))
            self.unread |= {read.key: read.reason for read in batch if not read.lasting}
            done += len(batch)
            report(done, len(tasks))
            stopped = bool(self._stop) or os.getppid() != self._job.parent
            full = len(part) >= self._settings.chunk or time.monotonic() - started > self._settings.save_seconds
            if stopped or full or done == len(tasks):
                part.save()
                part, started = _Part(self._chunks), time.monotonic()
            if stopped:
                raise Terminated(f"stopped after {done} of {len(tasks)} {name}; they are kept, run again")

    def _loader(self, tasks: list[_Task]) -> Iterable[list[_Read]]:
        return DataLoader(
            _Tasks(tasks, self._size), batch_size=self._batch, num_workers=self._workers, collate_fn=list,
            worker_init_fn=begin_worker,
        )  # fmt: skip

    @torch.inference_mode()
    def _rows(self, pictures: list[Pixels]) -> NDArray[np.float32]:
        """Descriptors (n, d)."""
        if not pictures:
            return np.zeros((0, self.facts["dimensions"]), np.float32)
        x = normalise(np.stack(pictures)).to(self._device)
        with autocast(self._precision, self._device):
            rows = self._model(x).float()
        result: NDArray[np.float32] = rows.cpu().numpy()
        return result


class _Part:
    """What is described and not kept yet."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._keys: list[str] = []
        self._rows: list[NDArray[np.float32]] = []
        self._bad: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._keys) + len(self._bad)

    def add(self, batch: list[_Read], rows: NDArray[np.float32]) -> None:
        self._keys += [read.key for read in batch if read.pixels is not None]
        self._rows.append(rows)
        self._bad |= {read.key: read.reason for read in batch if read.pixels is None and read.lasting}

    def save(self) -> None:
        if len(self):
            self._chunks.keep(self._keys, np.concatenate(self._rows), self._bad)


def _digest(facts: dict[str, Any], weights: str) -> str:
    """Names a folder by all that a descriptor depends on beside the picture."""
    named = json.dumps([PROGRAM_VERSIONS["extract"], weights, facts], sort_keys=True)
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def main() -> int:
    """Do the job; the exit code is by the table, the reason in the answer."""
    job = Job(**json.loads(sys.stdin.buffer.read()))
    answer: dict[str, Any]
    try:
        describer = _Describer(job)
        with lost_processes():
            describer.run()
        code, answer = 0, {"folder": str(describer.folder), "model": describer.facts, "unread": describer.unread}
    except IscJobsError as error:
        code, answer = int(error.exit_code), {"error": str(error)}
    except OSError as error:  # of the folder that it works in
        explained = of_file(error)
        if explained is None:
            raise
        code, answer = int(explained.exit_code), {"error": str(explained)}
    with os.fdopen(int(sys.argv[1]), "wb") as file:
        file.write(json.dumps(answer).encode())
    return code


if __name__ == "__main__":
    sys.exit(main())
