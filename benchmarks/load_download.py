"""Downloads of many objects: memory, requests, and a run killed by SIGKILL that goes on, by ``isc-jobs`` itself.

First buckets of so many made-up objects are listed (see listed_bucket.py), and a few of their shards packed; then small
JPEGs come from a real server (see s3_server.py, whose access log counts). Each time controller and stage are killed at
once, and ``resume`` goes on. Memory is the peak of the process, as the system says.
"""

import argparse
import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from listed_bucket import listed_bucket
from PIL import Image
from s3_server import BUCKET, s3_server

from isc_jobs.controller.manifest import read_manifest
from isc_jobs.spec.stage import InputRef
from isc_jobs.store import Store, open_store
from isc_jobs.store.artifacts import read_commit
from isc_jobs.store.source import open_source

RUN = "load"
PROGRAM = b"isc_jobs.stages.download"
SIDE = 64  # pixels of a small JPEG


@dataclass
class Processes:
    """A command and the download stage that it starts, watched."""

    arguments: list[str]
    environment: dict[str, str]
    peaks: dict[str, int] = field(default_factory=dict)  # MB by "controller" and "stage"
    seen: list[int] = field(default_factory=list)  # the stage's MB, again and again
    stage: int | None = None

    def __post_init__(self) -> None:
        """Start."""
        self.started = time.monotonic()
        self.began = 0.0  # when the stage did
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "isc_jobs", *self.arguments], env=self.environment, stdout=subprocess.DEVNULL
        )

    def look(self) -> None:
        """Note what memory they have."""
        self._note("controller", self.popen.pid)
        if self.stage is None:
            self.stage = _child(self.popen.pid)
            self.began = time.monotonic()
        if self.stage is not None:
            resident = self._note("stage", self.stage)
            self.seen += [resident] if resident else []

    def until(self, reached: Callable[[], bool]) -> None:
        """Watch until then, or until they end by themselves."""
        while self.popen.poll() is None and not reached():
            self.look()
            time.sleep(0.2)

    def kill(self) -> None:
        """Both at once: the controller must not see how the stage ends."""
        self.popen.send_signal(signal.SIGSTOP)
        for pid in (self.stage, self.popen.pid):
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        self.popen.wait()

    def resident_at(self, share: float) -> int:
        """The stage's MB after this share of its time."""
        return self.seen[round(share * (len(self.seen) - 1))]

    def _note(self, name: str, pid: int) -> int:
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
            sizes = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.startswith("Vm")}
            self.peaks[name] = max(self.peaks.get(name, 0), sizes.get("VmHWM", 0))
            return sizes.get("VmRSS", 0)
        return 0


def _child(controller: int) -> int | None:
    """The download stage among a process's children."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{controller}/task/{controller}/children").read_text("ascii").split():
            if PROGRAM in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return None


def run_all(source: str, store: str) -> list[str]:
    """The recipe of the challenge's size, up to its download."""
    return ["run-all", "--profile", "isc21", "--source", source, "--store", store, "--run", RUN, "--until", "download"]


def markers(store: Store) -> int:
    """How many shards are finished."""
    return sum(info.key.endswith(".json") for info in store.list("checkpoints/"))


def list_many(count: int, work: Path) -> str:
    """List a bucket, pack a shard or two, be killed, go on; a Markdown row."""
    store = open_store(str(work / "store"))
    with listed_bucket(count, jpeg(0)) as (bucket, address):
        environment = os.environ | {
            "AWS_ENDPOINT_URL_S3": address, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing", "ISC_JOBS_WORK": str(work / "scratch"),
        }  # fmt: skip
        listing = Processes(run_all("s3://listed", store.uri), environment)
        listing.until(lambda: listing.stage is not None)
        listed = time.monotonic() - listing.started
        listing.until(lambda: bucket.requests["GET"] > 0)
        planned = time.monotonic() - listing.began
        listing.until(lambda: markers(store) >= 1)
        listing.kill()
        first, kept = bucket.requests["LIST"], markers(store)
        resumed = Processes(["resume", RUN, "--store", store.uri], environment)
        resumed.until(lambda: markers(store) > kept)
        resumed.kill()
        again = bucket.requests["LIST"] - first
    size = sum(info.size for info in store.list("listings/"))
    controller, stages = listing.peaks["controller"], f"{listing.peaks['stage']} MB, {resumed.peaks['stage']} MB"
    cells = [f"{count:,}", f"{listed:.0f} s, {first:,} requests", f"{size / 1e6:.1f} MB", f"{controller} MB", stages,
             f"{planned:.0f} s", str(again)]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def jpeg(number: int) -> bytes:
    """A small picture of its own."""
    rng = np.random.default_rng(number)
    pixels = np.kron(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((SIDE // 8, SIDE // 8, 1), np.uint8))
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=85)
    return data.getvalue()


def fill(client: object, count: int) -> str:
    """Have so many pictures on the server, a fifth of them references; their URI."""
    uri = f"s3://{BUCKET}/small-{count}"
    if sum(1 for _ in open_source(uri).list()) == count:
        return uri
    places = [("reference_images/R", count // 5), ("train_images/T", count - count // 5)]
    keys = [f"small-{count}/{place}{number:06d}.jpg" for place, most in places for number in range(most)]
    with ThreadPoolExecutor(8) as senders:
        sent = [senders.submit(client.put_object, Bucket=BUCKET, Key=key, Body=jpeg(number))  # type: ignore[attr-defined]
                for number, key in enumerate(keys)]  # fmt: skip
        for one in sent:
            one.result()
    return uri


@dataclass
class AccessLog:
    """What the server noted of requests for the source's objects, from one look to the next."""

    path: Path
    prefix: str
    place: int = 0

    def look(self) -> Counter[str]:
        """LIST and GET requests since the last look, by object for the latter."""
        found: Counter[str] = Counter()
        with self.path.open("rb") as log:
            log.seek(self.place)
            for line in log:
                words = line.decode("utf-8", "replace").split()
                operation = next((word for word in words if word.startswith("s3_")), "")
                if operation == "s3_GetObject" and words[words.index(operation) + 1].startswith(f"{self.prefix}/"):
                    found[words[words.index(operation) + 1]] += 1
                elif operation == "s3_ListObjectsV2" and f"prefix={self.prefix}%2F" in line.decode():
                    found["LIST"] += 1
            self.place = log.tell()
        return found


@contextmanager
def store_of(name: str) -> Iterator[Store]:
    """A new store on the server."""
    store = open_store(f"s3://{BUCKET}/{name}")
    yield store
    for info in list(store.list("")):
        store.delete(info.key)


def outputs(store: Store) -> str:
    """SHA-256 of what download has committed: names, sizes and digests of all files."""
    key = read_manifest(store, RUN)[0].stages["download"]
    commit = read_commit(store, InputRef(stage="download", key=key))
    assert commit is not None
    return hashlib.sha256("".join(entry.model_dump_json() for entry in commit.files).encode()).hexdigest()


def fetch_many(count: int, megabytes: int, client: object, log: Path, work: Path) -> str:
    """Pack small pictures without a fault, then with a kill in the middle; a Markdown row."""
    source = fill(client, count)
    noted = AccessLog(log, f"small-{count}")
    noted.look()
    environment = os.environ | {"ISC_JOBS_WORK": str(work / "scratch")}
    setting = ["--set", f"data.shard_megabytes={megabytes}"]
    with store_of(f"whole-{count}") as store:
        whole = Processes([*run_all(source, store.uri), *setting], environment)
        whole.until(lambda: False)
        expected, shards = outputs(store), markers_made(store)
    lists = noted.look()["LIST"]
    with store_of(f"killed-{count}") as store:
        first = Processes([*run_all(source, store.uri), *setting], environment)
        first.until(lambda: markers(store) >= shards // 2)
        first.kill()
        kept = markers(store)
        before = noted.look()
        second = Processes(["resume", RUN, "--store", store.uri], environment)
        second.until(lambda: False)
        same = outputs(store) == expected
        after = noted.look()
    asked = before + after
    twice = sum(asked[key] > 1 for key in before if key != "LIST")
    rss = " / ".join(str(whole.resident_at(share)) for share in (0.1, 0.5, 0.95))
    return (f"| {count:,} in {shards} shards | {lists} | {rss} MB | {whole.peaks['stage']} MB | {kept} shards | "
            f"{after['LIST']} | {twice:,} | {'the same bytes' if same else 'OTHER BYTES'} |")  # fmt: skip


def markers_made(store: Store) -> int:
    """How many shards a finished download has."""
    return sum(info.key.endswith(".tar") for info in store.list("artifacts/download/"))


def heading(*names: str) -> None:
    """The head of a Markdown table."""
    print(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listed", type=int, nargs="*", default=[20_000, 200_000, 2_000_000])
    parser.add_argument("--fetched", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--megabytes", type=int, default=4, help="of a shard of small pictures")
    parser.add_argument("--work", type=Path, help="keeps the server's objects for the next time")
    arguments = parser.parse_args()
    heading("objects listed", "by run-all", "listing kept", "its memory", "download's memory, resumed",
            "start of download to first picture", "LIST requests of resume")  # fmt: skip
    for count in arguments.listed:
        with tempfile.TemporaryDirectory() as folder:
            print(list_many(count, Path(folder)), flush=True)
    heading("small JPEGs fetched", "LIST requests", "memory at a tenth, half, end", "peak", "killed after",
            "LIST requests of resume", "objects fetched again", "result")  # fmt: skip
    for count in arguments.fetched:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "access.log"
            with s3_server((arguments.work or Path(folder)) / "server", log) as client:
                print(fetch_many(count, arguments.megabytes, client, log, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
