"""The controller of a quiet run: its CPU time and memory, and its requests to the store, while a stage only sleeps.

The real loop with the local launcher, once with a store in a folder and once on S3 (see s3_server.py). CPU time is
that of the process from when the stage has begun, times as much as makes an hour; memory is its peak.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from s3_server import BUCKET, s3_server

from isc_jobs.controller import local
from isc_jobs.controller.launchers import make_launcher, policy_of
from isc_jobs.controller.request import Request
from isc_jobs.controller.run import Controller
from isc_jobs.spec.profile import load_settings
from isc_jobs.store import open_store

SETTLED_S = 10.0  # after which the run has become quiet


def request() -> Request:
    """Of a run whose first stage is the only one."""
    return Request(
        run="quiet", settings=load_settings("demo").model_dump(mode="json"), source="/nowhere", anonymous=False,
        source_digest="0" * 64, weights_sha256=None, first=None, last="download", launcher="local",
    )  # fmt: skip


def count_requests(store: Any) -> Counter[str]:
    """What boto3 sends from now on, by operation; nothing for a folder."""
    requests: Counter[str] = Counter()
    if hasattr(store, "bucket"):
        events = store._client.meta.events  # noqa: SLF001 - the benchmark looks at what it measures
        events.register("before-send.s3", lambda request, **_: requests.update([request.method]))
    return requests


def control(uri: str, seconds: float) -> None:
    """Be the controller for so long; print what it cost."""
    setattr(local, "_command", lambda *_: ["sleep", "100000"])  # noqa: B010 - the stage
    store, asked = open_store(uri), request()
    requests = count_requests(store)
    begun: list[tuple[float, int]] = []

    def measure(last: bool) -> None:
        begun.append((time.process_time(), sum(requests.values())))
        if last:
            os.kill(os.getpid(), signal.SIGTERM)

    for delay, last in ((SETTLED_S, False), (SETTLED_S + seconds, True)):
        threading.Timer(delay, measure, [last]).start()
    Controller(store, asked, None, lambda fenced: make_launcher(fenced, asked), policy_of(asked)).run()
    (cpu, sent), (cpu_then, sent_then) = begun
    hours = seconds / 3600
    print(json.dumps({
        "cpu_s_an_hour": round((cpu_then - cpu) / hours, 2), "requests_an_hour": round((sent_then - sent) / hours),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }))  # fmt: skip


def main() -> None:
    """Print a Markdown row for each kind of store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--store", help="be the controller of a run in this store: what main starts")
    arguments = parser.parse_args()
    if arguments.store:
        control(arguments.store, arguments.seconds)
        return
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder) / "server"):
        environment = os.environ | {"ISC_JOBS_WORK": f"{folder}/work"}
        for name, uri in (("a folder", f"{folder}/store"), ("S3", f"s3://{BUCKET}/store")):
            command = [sys.executable, __file__, "--store", uri, "--seconds", str(arguments.seconds)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"| controller, store in {name} | {found['cpu_s_an_hour']} s of CPU an hour, "
                  f"{found['peak_mb']} MB, {found['requests_an_hour']} requests an hour |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
