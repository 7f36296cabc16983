"""Runs beside one another in a namespace and a store: none asks for, or is told of, what is the others'.

benchmarks/load_runs.py has the same with 200 controllers on a real API server.
"""

from collections import Counter
from pathlib import Path

import pytest
from beside import beside
from fake_cluster import FakeApi
from sent_requests import SentRequests, of_others
from stores import s3

from isc_jobs.controller.kubernetes.launcher import KubernetesLauncher
from isc_jobs.controller.lease import FencedStore
from isc_jobs.controller.manifests import attempt_objects, run_owner
from isc_jobs.controller.podspec import LABEL, Object
from isc_jobs.controller.request import Request, pipeline_of, wanted_part
from isc_jobs.controller.run import Controller
from isc_jobs.controller.status import run_status
from isc_jobs.spec.pipeline import Pipeline, find_stage
from isc_jobs.spec.profile import load_settings
from isc_jobs.store import Store, open_store
from isc_jobs.store.artifacts import publish

__all__ = ["s3"]

RUN = "mine"
NEIGHBOURS = ("min", "mine-2", "mine2", "mine.3", "other", *(f"load-{number}" for number in range(5)))
IMAGES = [f"cluster.images.{name}=image@sha256:{'0' * 64}" for name in ("controller", "data", "train")]
SETTINGS = load_settings("demo", IMAGES)


def request(run: str, number: int = 0) -> Request:
    """Two stages of a run that shares none with others."""
    return Request(
        run=run, settings=SETTINGS.model_dump(mode="json"), source="s3://photos", anonymous=False,
        source_digest=f"{number:064x}", weights_sha256=None, first=None, last="train-v83", launcher="kubernetes",
    )  # fmt: skip


class Telling(FakeApi):
    """Notes of whom its lists tell."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Counter[str] = Counter()

    def list(self, version: str, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        found = super().list(version, kind, labels=labels, fields=fields)
        self.told.update(item["metadata"]["labels"][f"{LABEL}/run"] for item in found)
        return found


def move_in(api: FakeApi, store: Store, run: str, number: int) -> None:
    """A neighbour in the midst of its first stage, with all that it leaves in cluster and store."""
    stage = pipeline_of(request(run, number))[0]
    spec = stage.spec(run, 1, store.uri)
    for item in (run_owner(run, store.uri, SETTINGS.cluster), *attempt_objects(spec, SETTINGS.cluster)):
        api.create(item)
    for key in ("manifest.json", "lease.json", "download/attempt-1/spec.json", "download/attempt-1/progress.json"):
        store.put(f"runs/{run}/{key}", b"{}")
    store.put(f"checkpoints/{stage.key}/train-00000.json", b"{}")
    store.put(f"artifacts/download/{stage.key}/shards/train-00000.tar", b"")


def run_through(api: FakeApi, store: Store, part: Pipeline, folder: Path) -> int:
    """The exit code of the run's controller; pods succeed as soon as they are there."""
    folder.mkdir()
    (folder / "output.txt").write_text("made")

    def work() -> None:
        for name in sorted(name for name in api.names("Pod") if name.startswith(f"isc-{RUN}-")):
            pod = api.get("v1", "Pod", name)
            if pod is not None and pod["metadata"]["labels"][f"{LABEL}/run"] == RUN:
                stage = find_stage(part, pod["metadata"]["labels"][f"{LABEL}/stage"])
                publish(store, stage.ref, folder, run=RUN, attempt=1, summary={}, provenance={}, seconds=1.0)
                if ("Pod", name) in api.objects:
                    api.set_pod(name, "Succeeded")

    def launcher(fenced: FencedStore) -> KubernetesLauncher:
        return KubernetesLauncher(fenced, RUN, SETTINGS.cluster, api, print)

    with beside(work, 0.1):
        code = Controller(store, request(RUN), None, launcher).run()
    api.close()
    return code


@pytest.mark.parametrize("neighbours", [(), NEIGHBOURS], ids=["alone", "among others"])
def test_a_run_asks_for_its_own_alone(s3: str, tmp_path: Path, neighbours: tuple[str, ...]) -> None:
    api, store = Telling(), open_store(f"{s3}/{tmp_path.name}")
    part = wanted_part(pipeline_of(request(RUN)), request(RUN))
    for number, run in enumerate(neighbours, start=1):
        move_in(api, store, run, number)
    before = api.names("Pod"), {info.key for info in store.list("")}
    notes, shown = SentRequests("isc-jobs"), SentRequests("isc-jobs")
    with notes.noting():
        assert run_through(api, open_store(store.uri), part, tmp_path / "out") == 0
    with shown.noting():
        run_status(open_store(store.uri), RUN)
    assert set(api.told) == {RUN}
    keys = [stage.key for stage in part]
    assert of_others(notes.as_json() + shown.as_json(), RUN, keys) == []
    assert any(one.what.startswith("LIST") for one in notes.sent)
    # A manifest, a lease; of a finished stage its commit; of what has no output, that and its attempts.
    stages = len(pipeline_of(request(RUN)))
    assert Counter(one.what.split(" ")[0] for one in shown.sent) == {"GET": 1 + stages, "LIST": stages - len(part)}
    assert api.names("Pod") == before[0]
    assert before[1] <= {info.key for info in store.list("")}
