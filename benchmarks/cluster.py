"""A run on a cluster, watched: time to the first training step, between stages, and requests to the API server.

Arguments are those of ``run-all``, as --profile demo --run bench. With STORE, SOURCE, OVERLAY and SETTINGS in the
environment it begins with ``make deploy``; without, the namespace is deployed already.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from kubernetes import client, config, watch

from isc_jobs import cli, commands
from isc_jobs.controller.manifest import read_manifest
from isc_jobs.spec.stage import InputRef
from isc_jobs.store import NotFound, Store, open_store
from isc_jobs.store.artifacts import Commit, read_commit

NAMESPACE = "isc-jobs"
STAGE = "isc-jobs.io/stage"
FIRST = "train-v83"


class Observer:
    """Notes when pods are made, from a watch of its own, and every request of this process but that one."""

    def __init__(self) -> None:
        """Begin to watch."""
        self.made: dict[str, float] = {}  # Unix time of the first pod of each stage
        self.requests: list[float] = []  # Unix times
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        load: Any = config.load_config
        load()
        pods: Any = client.CoreV1Api()
        follow: Any = watch.Watch
        version = pods.list_namespaced_pod(NAMESPACE).metadata.resource_version
        for event in follow().stream(pods.list_namespaced_pod, NAMESPACE, resource_version=version):
            stage = (event["object"].metadata.labels or {}).get(STAGE)
            if event["type"] == "ADDED" and stage is not None:
                self.made.setdefault(stage, time.time())

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the requests of all threads but the observer's."""
        rest: Any = client.rest.RESTClientObject
        original = rest.request

        def request(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is not self._thread:
                self.requests.append(time.time())
            return original(*arguments, **options)

        rest.request = request
        try:
            yield
        finally:
            rest.request = original


class FirstStep:
    """When the first training made its first step, by its own progress."""

    def __init__(self, store: Store, run: str) -> None:
        """Begin to look."""
        self.time: float | None = None
        self._store, self._key = store, f"runs/{run}/{FIRST}/attempt-1/progress.json"
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while self.time is None:
            time.sleep(0.5)
            try:
                state = json.loads(self._store.get(self._key)[0])
            except NotFound:
                continue
            if state["rate"]:
                self.time = state["unix_time"] - (state["step"] - 1) / state["rate"]


def main() -> int:
    """Deploy, run, print the figures."""
    started = time.time()
    if "STORE" in os.environ:
        subprocess.run(["make", "deploy"], check=True)  # noqa: S607 - the user's own make
    observer = Observer()
    time.sleep(1)
    arguments = ["run-all", "--launcher", "kubernetes", *sys.argv[1:]]
    parsed = cli.build_parser().parse_args(arguments)
    request = commands._request(parsed)  # noqa: SLF001 - fills in the deployed store
    store = open_store(parsed.store)
    first = FirstStep(store, request.run)
    ran = time.time()
    with observer.counting():
        code = cli.main(arguments)
    minutes = (time.time() - ran) / 60
    stages = read_manifest(store, request.run)[0].stages
    commits = [read_commit(store, InputRef(stage=name, key=key)) for name, key in stages.items()]
    report(observer, [commit for commit in commits if commit is not None and commit.run == request.run])
    print(f"in all {len(observer.requests)} requests in {minutes:.1f} minutes")
    if first.time is not None:
        since = "make deploy" if "STORE" in os.environ else "run-all"
        print(f"{since} to the first training step: {first.time - (started if 'STORE' in os.environ else ran):.1f} s")
    return code


def report(observer: Observer, commits: list[Commit]) -> None:
    """Seconds from each commit to the next stage's pod; requests a minute while long stages work."""
    made = [commit for commit in commits if commit.stage in observer.made]  # not finished before
    ended = sorted((datetime.fromisoformat(commit.created).timestamp(), commit.stage) for commit in made)
    waits, asked, seconds = [], 0, 0.0
    for when, stage in ended:
        begun = observer.made[stage]
        count = sum(begun < request < when for request in observer.requests)
        if when - begun > 30:
            asked, seconds = asked + count, seconds + when - begun
        later = [made for made in observer.made.values() if made > when]
        waits += [min(later) - when] if later else []
        shown = f"next pod after {waits[-1]:.2f} s" if later else ""
        print(f"{stage:<20}{when - begun:7.1f} s from pod to commit   {count:3} requests   {shown}")
    print(f"commit to next pod: median {statistics.median(waits):.2f} s, most {max(waits):.2f} s, {len(waits)} times")
    if seconds:
        print(f"requests to the API server: {60 * asked / seconds:.1f} a minute in stages of more than 30 s")


if __name__ == "__main__":
    sys.exit(main())
