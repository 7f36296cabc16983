"""Many objects: what is listed and planned takes no more memory for it, and is listed once; benchmarks/load_download.py
has the same at full size.
"""

import gc
import os
import random
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from listed_bucket import BYTES, PAGE, ListedBucket, listed_bucket
from load_download import Processes, jpeg, markers, outputs, run_all

from isc_jobs.spec.errors import TemporaryError
from isc_jobs.stages.sharding import Plan, picture_id
from isc_jobs.store import open_store
from isc_jobs.store.listing import read_listing, source_digest
from isc_jobs.store.port import ObjectInfo
from isc_jobs.store.source import open_source

FEW, MANY = 1_000, 8_000
HELD = 20 * (MANY - FEW)  # bytes: less than a key of each


def use(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """The server of this address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def test_a_listing_takes_one_request_a_thousand_when_it_comes_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with listed_bucket(4 * PAGE + 1, b"") as (bucket, address):
        use(monkeypatch, address)
        found = open_source("s3://listed").list()
        keys = [next(found).key]
        assert dict(bucket.requests) == {"LIST": 1}
        keys += [info.key for info in found]
        assert dict(bucket.requests) == {"LIST": 5}
        assert keys == [bucket.key(number) for number in range(bucket.count)] == sorted(keys)


class Listed:
    """A source of so many objects, known without a server."""

    uri = "listed"

    def __init__(self, count: int) -> None:
        self.bucket = ListedBucket(count, b"")

    def list(self) -> Iterator[ObjectInfo]:
        return (ObjectInfo(self.bucket.key(number), BYTES, "") for number in range(self.bucket.count))

    def read(self, key: str) -> bytes:
        raise NotImplementedError


def peak(act: Callable[[], object]) -> int:
    """Bytes of Python's that it takes at most."""
    gc.collect()
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_listing_and_its_plan_take_the_memory_of_a_short_one(tmp_path: Path) -> None:
    def plan(count: int) -> None:
        found = Plan(read_listing(tmp_path / "listing"), "", BYTES * count // 8, tmp_path / "plan")
        assert sum(1 for shard in found.shards for _ in found.keys(shard)) == found.total == count
        found.close()

    listed, planned = {}, {}
    for count in (FEW, MANY):
        listed[count] = peak(lambda: source_digest(Listed(count), tmp_path / "listing"))  # noqa: B023 - called at once
        planned[count] = peak(lambda: plan(count))  # noqa: B023
    assert listed[MANY] - listed[FEW] < HELD
    assert planned[MANY] - planned[FEW] < HELD


def test_a_plan_is_that_of_all_pictures_sorted_by_their_ids(tmp_path: Path) -> None:
    """By id, which is not the order of keys: ``a-1.jpg`` is listed before ``a.jpg``, and two folders hold one set."""
    chance = random.Random(0)
    names = {f"{chance.choice('abc')}{chance.choice(['', '-', '.', '_'])}{chance.randrange(400)}" for _ in range(900)}
    folders = ["train_images", "training_images", "reference_images", "query_images"]
    infos = sorted(
        (ObjectInfo(f"{chance.choice(folders)}/{name}.{chance.choice(['jpg', 'PNG'])}", chance.randrange(3000), "")
         for name in names), key=lambda info: info.key,
    )  # fmt: skip
    expected: list[tuple[str, list[str]]] = []
    for name, members in (("query_phase1", folders[3:]), ("reference", folders[2:3]), ("train", folders[:2])):
        number, filled = -1, 0
        chosen = [info for info in infos if info.key.split("/")[0] in members]
        for info in sorted(chosen, key=lambda info: picture_id(info.key)):
            if number < 0 or (filled and filled + info.size > 10_000):
                number, filled = number + 1, 0
                expected.append((f"{name}-{number:05d}", []))
            expected[-1][1].append(info.key)
            filled += info.size
    plan = Plan(iter(infos), "", 10_000, tmp_path / "plan")
    assert [(shard.name, list(plan.keys(shard))) for shard in plan.shards] == expected
    assert [shard.count for shard in plan.shards] == [len(keys) for _, keys in expected]
    assert sorted(plan.ids("train")) == sorted(
        picture_id(key) for name, keys in expected for key in keys if name.startswith("train")
    )


def test_a_full_disk_ends_the_plan_as_temporary(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(TemporaryError, match="the plan of shards cannot be written"):
            Plan(Listed(100_000).list(), "", 1 << 20, tmp_path / "plan")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_download_killed_amid_many_objects_goes_on_without_listing_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, setting = 1_000, ["--set", "data.shard_megabytes=16"]
    with listed_bucket(count, jpeg(0)) as (bucket, address):
        use(monkeypatch, address)
        monkeypatch.setenv("ISC_JOBS_WORK", str(tmp_path / "work"))
        stores = {name: open_store(str(tmp_path / name)) for name in ("whole", "killed")}
        whole = Processes([*run_all("s3://listed", stores["whole"].uri), *setting], dict(os.environ))
        whole.until(lambda: False)
        assert dict(bucket.requests) == {"LIST": 1, "GET": count}
        first = Processes([*run_all("s3://listed", stores["killed"].uri), *setting], dict(os.environ))
        first.until(lambda: markers(stores["killed"]) >= 2)
        first.kill()
        assert bucket.requests["LIST"] == 2
        names = {path.stem for path in (tmp_path / "killed/checkpoints").rglob("*.json")}
        indexes = [path for path in (tmp_path / "killed/artifacts").rglob("*.csv") if path.stem in names]
        kept = sum(len(path.read_text().splitlines()) - 1 for path in indexes)
        assert 2 * ((16 << 20) // BYTES) <= kept < count  # whole pictures fill a shard
        bucket.requests.clear()
        second = Processes(["resume", "load", "--store", stores["killed"].uri], dict(os.environ))
        second.until(lambda: False)
    assert (second.popen.returncode, dict(bucket.requests)) == (0, {"GET": count - kept})
    assert outputs(stores["killed"]) == outputs(stores["whole"])
