"""Download in parts: the output is the same to the bit however many pods share the work, whatever befalls them."""

import json
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from download_stage import BIG, add_large, contents, context, killed_at, make_source, picture, run

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.stage import InputRef
from isc_jobs.stages import runner
from isc_jobs.stages.download import body
from isc_jobs.stages.runner import run_stage
from isc_jobs.store import open_store
from isc_jobs.store.artifacts import read_commit
from isc_jobs.store.listing import keep_listing

SHARDS = 8  # of the large source: one of each set but train, five of train


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return add_large(make_source(tmp_path / "source"))


@pytest.fixture
def whole(tmp_path: Path, large: Path) -> dict[str, bytes]:
    """What one pod alone makes."""
    ctx = context(tmp_path / "whole", large, **BIG)
    run(ctx)
    return contents(ctx)


@pytest.mark.parametrize("parts", [2, 3, 7, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_parts_in_any_order_make_what_one_makes(
    tmp_path: Path, large: Path, whole: dict[str, bytes], parts: int, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sum(name.endswith(".tar") for name in whole) == SHARDS
    order = random.Random(seed).sample(range(parts), parts)
    contexts = [context(tmp_path, large, part=part, parts=parts, **BIG) for part in order]
    summaries = [run(ctx) for ctx in contexts]
    assert contents(contexts[0]) == whole
    ended = len(summaries) - summaries.index(next(s for s in summaries if s is not None))
    # Parts beyond the shards have nothing to do and see all done, if they come last.
    assert ended == 1 if parts <= SHARDS else ended >= 1
    said = capsys.readouterr().out
    assert f"part {order[0]} of {parts} is done, " in said
    assert "pieces are still being made by others" in said


def test_parts_at_the_same_time_make_what_one_makes(tmp_path: Path, large: Path, whole: dict[str, bytes]) -> None:
    contexts = [context(tmp_path, large, part=part, parts=4, **BIG) for part in range(4)]
    with ThreadPoolExecutor(4) as pool:
        summaries = list(pool.map(run, contexts))
    assert any(summary is not None for summary in summaries)
    assert contents(contexts[0]) == whole


def test_each_part_may_run_twice_and_two_may_merge(tmp_path: Path, large: Path, whole: dict[str, bytes]) -> None:
    contexts = [context(tmp_path, large, part=part, parts=3, **BIG) for part in (0, 0, 1, 1, 2, 2, 0)]
    summaries = [run(ctx) for ctx in contexts]
    assert [summary is not None for summary in summaries] == [False, False, False, False, True, True, True]
    assert summaries[4] == summaries[5] == summaries[6]
    assert contents(contexts[0]) == whole


def test_a_killed_part_is_begun_anew_by_other_numbers_of_parts(
    tmp_path: Path, large: Path, whole: dict[str, bytes]
) -> None:
    assert run(context(tmp_path, large, 1, part=0, parts=2, **BIG)) is None
    killed_at(context(tmp_path, large, 1, part=1, parts=2, **BIG), 6)
    done = {path.stem for path in (tmp_path / "store/checkpoints").rglob("*.json")}
    assert SHARDS // 2 < len(done) < SHARDS
    for part in (2, 0):
        assert run(context(tmp_path, large, 2, part=part, parts=3, **BIG)) is None
    last = context(tmp_path, large, 2, part=1, parts=3, **BIG)
    assert run(last) is not None
    assert contents(last) == whole


@pytest.mark.parametrize("damage", ["shard", "marker"])
def test_a_part_does_not_publish_what_another_has_not_verified(
    tmp_path: Path, large: Path, whole: dict[str, bytes], damage: str
) -> None:
    """Part 0 takes its shards over and sees all of part 1 there: not a reason to trust them."""
    for part in (0, 1):
        body(context(tmp_path, large, 1, part=part, parts=2, **BIG))  # ends before it publishes
    place = "artifacts/download" if damage == "shard" else "checkpoints"
    name = "shards/train-00000.tar" if damage == "shard" else "train-00000.json"
    path = tmp_path / "store" / place / ("k" * 64) / name
    path.write_bytes(b"x" * path.stat().st_size)
    own = sorted(name for name in whole if name.endswith(".tar")).index("shards/train-00000.tar") % 2
    assert run(context(tmp_path, large, 2, part=1 - own, parts=2, **BIG)) is None
    last = context(tmp_path, large, 2, part=own, parts=2, **BIG)
    assert run(last) is not None
    assert contents(last) == whole


def test_a_shard_ends_by_the_listing_whichever_pictures_are_bad(tmp_path: Path, large: Path) -> None:
    """A later change of one picture from good to bad leaves all other shards as they are."""
    ctx = context(tmp_path / "a", large, **BIG)
    run(ctx)
    path = large / "train_images/T000015.png"
    path.write_bytes(b"x" * path.stat().st_size)
    other = context(tmp_path / "b", large, **BIG)
    run(other)
    before, after = contents(ctx), contents(other)
    differ = {name for name in before if name.startswith("shards/") and before[name] != after[name]}
    assert len(differ) == 2  # a tar and its index
    assert len(before) == len(after)


def test_a_shard_of_bad_pictures_alone_is_empty(tmp_path: Path, large: Path) -> None:
    last = large / "train_images/T000019.png"
    last.write_bytes(b"x" * last.stat().st_size)
    for parts in (1, 2):
        base = tmp_path / str(parts)
        contexts = [context(base, large, part=part, parts=parts, **BIG | {"max_bad_share": 0.9})
                    for part in range(parts)]  # fmt: skip
        for ctx in contexts:
            run(ctx)
        found = contents(contexts[0])
        empty = [name for name in found if name.endswith(".csv") and name.startswith("shards/")
                 and found[name].count(b"\n") == 1]  # fmt: skip
        assert empty == ["shards/train-00004.csv"]
        manifest = json.loads(found["manifest.json"])["sets"]["train"]
        assert (manifest["count"], len(manifest["shards"])) == (10, 5)


def test_a_part_that_alone_meets_too_many_bad_pictures_ends_at_once(tmp_path: Path, large: Path) -> None:
    for path in (large / "train_images").iterdir():
        path.write_bytes(b"x" * path.stat().st_size)
    contexts = [context(tmp_path, large, part=part, parts=2, **BIG | {"max_bad_share": 0.1}) for part in (0, 1)]
    for ctx in contexts:
        with pytest.raises(DataError, match="of 18 pictures are bad"):
            run(ctx)
    assert len(list((tmp_path / "store/checkpoints").rglob("*.json"))) == 5  # each up to its first of train


def test_bad_pictures_are_counted_over_all_parts(tmp_path: Path, large: Path) -> None:
    (large / "query_images/Q00000.png").write_bytes(b"")
    limit = BIG | {"max_bad_share": 0.06}  # one of 18
    assert run(context(tmp_path, large, part=0, parts=2, **limit)) is None
    with pytest.raises(DataError, match=r"2 of 18 pictures are bad.*query_images/Q00000.png: empty file.*T000012"):
        run(context(tmp_path, large, part=1, parts=2, **limit))


def test_a_source_that_changed_after_the_run_was_planned_is_refused(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context(tmp_path, large, **BIG)
    (large / "train_images/T000099.png").write_bytes(picture())
    with pytest.raises(DataError, match=r"has changed since the run was planned: its listing is .*run-all"):
        body(ctx)
    keep_listing(ctx.store, ctx.spec.parameters["source_digest"], tmp_path / "planned.tsv.gz")
    monkeypatch.delattr("isc_jobs.store.source._FolderSource.list")  # one that is kept is not made again
    assert run(ctx) is not None
    assert "T000099" not in contents(ctx)["shards/train-00004.csv"].decode()


def test_a_wrong_ground_truth_is_found_before_any_picture_is_read(tmp_path: Path, large: Path) -> None:
    (large / "ground_truth_phase1.csv").write_text("query_id,reference_id\nQ00000,R999999\n")
    ctx = context(tmp_path, large, **BIG)
    with pytest.raises(DataError, match="reference 'R999999' is not among the 3"):
        body(ctx)
    assert not list(ctx.store.list("checkpoints/"))


@pytest.fixture
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_program_takes_its_part_from_the_pods_variables(
    tmp_path: Path, large: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, handler: None
) -> None:
    ctx = context(tmp_path, large, **BIG)
    (tmp_path / "spec.json").write_text(ctx.spec.model_dump_json())
    monkeypatch.setattr("sys.argv", ["download", "--spec", str(tmp_path / "spec.json")])
    monkeypatch.setenv("ISC_JOBS_PARTS", "2")
    ref, store = InputRef(stage="download", key="k" * 64), open_store(ctx.spec.store)
    for part in ("1", "0"):
        assert read_commit(store, ref) is None
        monkeypatch.setenv("JOB_COMPLETION_INDEX", part)
        assert run_stage("download", body) == 0
    assert contents(ctx) == whole
    states = [json.loads(store.get(f"runs/test/download/attempt-1/progress-{part}.json")[0]) for part in (0, 1)]
    assert all(state["step"] == state["total"] for state in states)
    assert sum(state["total"] for state in states) == 18
    assert store.stat("runs/test/download/attempt-1/progress.json") is None


@pytest.mark.parametrize(("part", "parts"), [("1", None), ("2", "2"), ("0", "0"), ("x", "2"), ("0", "-1")])
def test_a_part_that_cannot_be_is_refused(part: str, parts: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", part)
    if parts is not None:
        monkeypatch.setenv("ISC_JOBS_PARTS", parts)
    with pytest.raises(UsageError, match="expected a part from 0 below parts"):
        runner._part()
    assert os.environ["JOB_COMPLETION_INDEX"] == part
