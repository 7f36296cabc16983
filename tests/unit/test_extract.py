"""Extract in parts: descriptors.h5 is the same to the bit however many pods share the work, and after a kill."""

import hashlib
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from download_stage import Killed, context, make_source, output, picture, run

from isc_jobs.spec.errors import DataError, Stopped
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.stage import InputRef, StageSpec
from isc_jobs.stages.extract import body
from isc_jobs.stages.runner import Context
from isc_jobs.store.artifacts import Artifact, publish
from isc_jobs.vision.model import build_model, normalise
from isc_jobs.vision.resize import load_resized
from isc_jobs.vision.shards import ShardSet

SETTINGS = load_settings("demo", [
    "extract.input_size=32", "extract.batch=2", "extract.target_set=qrt", "compute.loader_workers=0",
    "compute.threads=1",
])  # fmt: skip
SHARDS = 6  # that hold pictures: one of queries, one of references, four of training images


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Download's finished output: shards of three pictures, batches of two; one shard has none."""
    root = tmp_path_factory.mktemp("data")
    source = make_source(root / "source")
    for number in range(10, 24):
        (source / "train_images" / f"T0000{number}.png").write_bytes(picture(number, side=340))
    for path in sorted((source / "train_images").iterdir())[5:8]:
        path.write_bytes(b"x" * path.stat().st_size)
    ctx = context(root, source, max_pixels=1_000_000, max_bad_share=0.5)
    run(ctx)
    assert [len(places) for _, places in ShardSet(output(ctx), "train").shards] == [5, 0, 3, 3, 2]
    return ctx


def extraction(
    data: Context, tmp_path: Path, part: int = 0, parts: int = 1, attempt: int = 1, **changes: dict[str, Any]
) -> Context:
    """An attempt, or a part of it, whose output's key is the folder's own."""
    values = SETTINGS.model_dump(mode="json")
    settings = {name: values[name] | changes.get(name, {}) for name in ("model", "extract")}
    spec = StageSpec(
        program="extract", stage="extract", key=hashlib.sha256(bytes(tmp_path)).hexdigest(), run="test",
        attempt=attempt, store=data.store.uri,
        settings=settings, inputs={"data": data.ref}, parameters={},
        execution={"compute": values["compute"] | changes.get("compute", {})},
    )  # fmt: skip
    return Context(spec, data.store, tmp_path / f"work-{attempt}-{part}-of-{parts}", part=part, parts=parts)


def extracted(ctx: Context) -> bytes | None:
    """Run a part; descriptors.h5 if it was the last one."""
    summary = body(ctx)
    assert summary in (None, {"query": 1, "reference": 3, "train": 13})
    return None if summary is None else (ctx.out / "descriptors.h5").read_bytes()


@pytest.fixture(scope="module")
def whole(data: Context, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one pod alone makes."""
    made = extracted(extraction(data, tmp_path_factory.mktemp("whole")))
    assert made is not None
    return made


def markers(ctx: Context) -> set[str]:
    keys = (info.key for info in ctx.store.list(f"checkpoints/{ctx.spec.key}/"))
    return {Path(key).stem for key in keys if key.endswith(".json")}


@pytest.mark.parametrize("order", [(1, 0), (2, 0, 1), (3, 6, 0, 5, 1, 2, 4)], ids=["2", "3", "7"])
def test_parts_in_any_order_make_what_one_makes(
    data: Context, whole: bytes, tmp_path: Path, order: tuple[int, ...]
) -> None:
    made = [extracted(extraction(data, tmp_path, part, len(order))) for part in order]
    assert made == [None] * (len(order) - 1) + [whole]
    again = [extracted(extraction(data, tmp_path, part, len(order))) for part in order[:2]]
    assert again == [whole, whole]  # all is there: each may merge


def test_rows_are_the_descriptors_of_the_pictures_in_their_order(data: Context, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "whole.h5").write_bytes(whole)
    model = build_model(SETTINGS.model, pretrained=True, gem_p=SETTINGS.model.gem_eval_p).eval()
    with h5py.File(tmp_path / "whole.h5") as file:
        for name, set_ in (("query", "query_phase2"), ("reference", "reference"), ("train", "train")):
            pictures = ShardSet(output(data), set_)
            rows = np.stack([load_resized(pictures.read(n), 32) for n in range(len(pictures))])
            with torch.inference_mode():
                expected = model.features(normalise(rows)).numpy()
            np.testing.assert_allclose(file[name][:], expected, atol=1e-5)
            assert [id_.decode() for id_ in file[f"{name}_ids"][:]] == pictures.ids
            assert file[name].dtype == np.float32


@pytest.mark.parametrize(
    ("choice", "sizes", "mirrored"), [("none", (32,), False), ("mirror", (32,), True), ("full", (23, 32, 45), True)]
)
def test_augmentation_sums_sizes_and_mirror_images(
    data: Context, tmp_path: Path, choice: str, sizes: tuple[int, ...], mirrored: bool
) -> None:
    """Sizes are 32 / sqrt 2 = 22.6, 32, 32 * sqrt 2 = 45.3."""
    ctx = extraction(data, tmp_path, extract={"test_time_augmentation": choice, "target_set": "r"})
    assert body(ctx) == {"reference": 3}
    model = build_model(SETTINGS.model, pretrained=True, gem_p=SETTINGS.model.gem_eval_p).eval()
    pictures = ShardSet(output(data), "reference")
    expected = []
    with torch.inference_mode():
        for encoded in map(pictures.read, range(3)):
            views = [load_resized(encoded, size)[None] for size in sizes]
            views += [view[:, :, ::-1].copy() for view in views] if mirrored else []
            total = torch.cat([model.features(normalise(view)) for view in views]).sum(0)
            expected.append((total / total.norm()).numpy())
    with h5py.File(ctx.out / "descriptors.h5") as file:
        np.testing.assert_allclose(file["reference"][:], np.stack(expected), atol=1e-5)


def test_loader_processes_change_nothing(data: Context, whole: bytes, tmp_path: Path) -> None:
    assert extracted(extraction(data, tmp_path, compute={"loader_workers": 2})) == whole


def test_a_part_fetches_only_the_shards_that_it_describes(
    data: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()
    path = Artifact.path

    def noted(artifact: Artifact, name: str) -> Path:
        asked.add(name)
        return path(artifact, name)

    monkeypatch.setattr(Artifact, "path", noted)
    assert body(extraction(data, tmp_path, 1, 3)) is None
    assert {name for name in asked if name.endswith(".tar")} == {
        "shards/reference-00000.tar", "shards/train-00003.tar",
    }  # fmt: skip


def killed_after(ctx: Context, step: int) -> None:
    def progress(done: int, _total: int, **_: float) -> None:
        if done >= step:
            raise Killed

    ctx.progress = progress
    with pytest.raises(Killed):
        body(ctx)


@pytest.mark.parametrize("damage", ["none", "rows", "gone rows", "marker"])
def test_a_killed_attempt_is_taken_up_and_ends_the_same_to_the_bit(
    data: Context, whole: bytes, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = extraction(data, tmp_path)
    killed_after(first, 1 + 3 + 5 + 1)
    assert markers(first) == {"query_phase2-00000", "reference-00000", "train-00000"}
    where = f"checkpoints/{first.spec.key}/reference-00000"
    if damage == "rows":
        first.store.put(f"{where}.npy", first.store.get(f"{where}.npy")[0][:-1] + b"?")
    elif damage == "gone rows":
        first.store.delete(f"{where}.npy")
    elif damage == "marker":
        first.store.put(f"{where}.json", b'{"attempt": "test/1"')
    capsys.readouterr()
    steps: list[tuple[int, int]] = []
    second = extraction(data, tmp_path, attempt=2)
    second.progress = lambda done, total: steps.append((done, total))
    assert extracted(second) == whole
    kept = 9 if damage == "none" else 6
    assert (steps[0], steps[-1]) == ((kept + 2, 17), (17, 17))
    said = "reference-00000 of an earlier attempt is damaged and made anew" in capsys.readouterr().out
    assert said == (damage != "none")


def test_a_request_to_stop_loses_no_finished_shard(data: Context, whole: bytes, tmp_path: Path) -> None:
    ctx = extraction(data, tmp_path)
    ctx.progress = lambda done, _total: os.kill(os.getpid(), signal.SIGTERM) if done >= 6 else None
    before = signal.signal(signal.SIGTERM, ctx.request_stop)
    try:
        with pytest.raises(Stopped):
            body(ctx)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert markers(ctx) == {"query_phase2-00000", "reference-00000"}
    assert extracted(extraction(data, tmp_path, attempt=2)) == whole


def test_a_loader_process_leaves_the_end_to_its_stage(data: Context, tmp_path: Path) -> None:
    loader = multiprocessing.get_context("fork").Process(
        target=extraction(data, tmp_path).request_stop, args=(signal.SIGTERM, None)
    )
    loader.start()
    loader.join()
    assert loader.exitcode == 0


def test_a_set_without_pictures_is_refused(data: Context, tmp_path: Path) -> None:
    (tmp_path / "source/train_images").mkdir(parents=True)
    (tmp_path / "source/train_images/T.png").write_bytes(picture())
    alone = context(tmp_path, tmp_path / "source")
    run(alone)
    with pytest.raises(DataError, match=r"hold no query pictures: leave 'q' out of extract.target_set"):
        body(extraction(alone, tmp_path / "extract"))


def test_descriptors_that_are_no_numbers_are_refused_and_not_kept(data: Context, tmp_path: Path) -> None:
    model = build_model(SETTINGS.model, pretrained=False)
    with torch.no_grad():
        model.fc.weight.fill_(3e38)  # finite themselves
    ref = InputRef(stage="weights", key=hashlib.sha256(bytes(tmp_path)).hexdigest())
    (tmp_path / "weights").mkdir()
    torch.save(model.state_dict(), tmp_path / "weights/weights.pth.tar")
    publish(data.store, ref, tmp_path / "weights", run="test", attempt=1, summary={}, provenance={}, seconds=0.0)
    ctx = extraction(data, tmp_path)
    ctx.spec.inputs["weights"] = ref
    with pytest.raises(DataError, match=r"descriptors of 1 of 1 pictures of query\S* hold NaN.*first that of Q"):
        body(ctx)
    assert markers(ctx) == set()
