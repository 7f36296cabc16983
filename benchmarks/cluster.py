"""A run on a cluster, watched: what the controller costs between stages, and what it asks of the API server.

Needs a deployed namespace (make deploy); arguments are those of ``run-all``, as --profile demo --run bench.
"""

import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from kubernetes import client, config, watch

from isc_jobs import cli, commands

NAMESPACE = "isc-jobs"
STAGE = "isc-jobs.io/stage"


class Observer:
    """Notes when pods are made, from a watch of its own, and every request of this process but that one."""

    def __init__(self) -> None:
        """Begin to watch."""
        self.made: list[tuple[float, str]] = []  # Unix time, stage
        self.requests: list[float] = []  # Unix times
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        load: Any = config.load_config
        load()
        pods = client.CoreV1Api()
        listed = pods.list_namespaced_pod(NAMESPACE)
        version = listed.metadata.resource_version
        for event in watch.Watch().stream(pods.list_namespaced_pod, NAMESPACE, resource_version=version):
            labels = event["object"].metadata.labels or {}
            if event["type"] == "ADDED" and STAGE in labels:
                self.made.append((time.time(), labels[STAGE]))

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


def main() -> int:
    """Run, then print the figures."""
    observer = Observer()
    time.sleep(1)
    arguments = ["run-all", "--launcher", "kubernetes", *sys.argv[1:]]
    started = time.time()
    with observer.counting():
        code = cli.main(arguments)
    parsed = cli.build_parser().parse_args(arguments)
    commands._request(parsed)  # noqa: SLF001 - fills in the deployed store
    report(observer, parsed.store, parsed.run or parsed.profile, started)
    return code


def report(observer: Observer, uri: str, run: str, started: float) -> None:
    """Seconds from each commit to the next pod, requests a minute while a stage works."""
    from isc_jobs.controller.manifest import read_manifest
    from isc_jobs.spec.stage import InputRef
    from isc_jobs.store import open_store
    from isc_jobs.store.artifacts import read_commit

    store = open_store(uri)
    stages = read_manifest(store, run)[0].stages
    commits = {name: read_commit(store, InputRef(stage=name, key=key)) for name, key in stages.items()}
    ended = {n: datetime.fromisoformat(c.created).timestamp() for n, c in commits.items() if c and c.run == run}
    waits, rates = [], []
    first = {stage: min(when for when, name in observer.made if name == stage) for _, stage in observer.made}
    for stage, when in sorted(ended.items(), key=lambda item: item[1]):
        later = [made for made in first.values() if made > when]
        if later:
            waits.append(min(later) - when)
        asked = [request for request in observer.requests if first[stage] < request < when]
        rates.append((when - first[stage], len(asked)))
        print(
            f"{stage:<20}next pod after {waits[-1] if later else 0:.2f} s   "
            f"{len(asked)} requests in {rates[-1][0]:.0f} s"
        )
    print(f"commit to next pod: median {statistics.median(waits):.2f} s, most {max(waits):.2f} s, {len(waits)} stages")
    long = [(seconds, count) for seconds, count in rates if seconds > 30] or rates
    minutes = sum(seconds for seconds, _ in long) / 60
    print(f"requests to the API server: {sum(count for _, count in long) / minutes:.1f} a minute in stages over 30 s")
    print(f"all: {len(observer.requests)} requests in {(time.time() - started) / 60:.1f} minutes")
    print(json.dumps({"first_pod_s": round(min(first.values()) - started, 2)}))


if __name__ == "__main__":
    sys.exit(main())
