"""What a run will take: counts by hand and by the real parts, what binds, and the command."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from photo_samples import build_trainer, samples, silent, training
from stores import s3

from isc_jobs import cli
from isc_jobs.estimate.bounds import Bounds
from isc_jobs.estimate.machine import Machine, on_nodes
from isc_jobs.estimate.predict import (
    CPU,
    DISK,
    GPU,
    INPUT,
    LAUNCHES,
    NETWORK,
    ROUND_TRIPS,
    STORE,
    Prediction,
    predict_run,
)
from isc_jobs.estimate.source import size_of
from isc_jobs.estimate.tables import at_size, load_tables
from isc_jobs.estimate.work import DataSize, Work, puts, shards_of, work_of
from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.pipeline import build_pipeline, find_stage
from isc_jobs.spec.profile import load_settings
from isc_jobs.stages.sharding import Plan
from isc_jobs.store import ObjectInfo
from isc_jobs.store.s3 import S3Store
from isc_jobs.store.source import open_source
from isc_jobs.training.distributed import World
from isc_jobs.training.loop import train
from isc_jobs.training.schedule import Batches
from isc_jobs.vision.shards import Picture, write_shard

__all__ = ["s3"]
TABLES = load_tables()
DISC21 = DataSize()


def work(stage: str, *overrides: str, data: DataSize = DISC21) -> Work:
    settings = load_settings("isc21", overrides)
    return work_of(find_stage(build_pipeline(settings, "", ""), stage), settings, data, TABLES)


def predicted(
    *overrides: str, nodes: int | None = 1, cores: float | None = None, gpu: str = "a100", **machine: float
) -> dict[str, Prediction]:
    settings = on_nodes(load_settings("isc21", overrides), nodes, 8, cores)
    found = predict_run(settings, DISC21, Machine(gpu=gpu, **machine), TABLES)  # type: ignore[arg-type]
    return {prediction.work.stage: prediction for prediction in found}


def test_the_trainings_of_the_full_recipe_by_hand() -> None:
    v83, v86, v98, v107 = (work(f"train-{name}") for name in ("v83", "v86", "v98", "v107"))
    assert v83.steps == v86.steps == 6 * (1_000_000 // 128) == 46_872
    assert (v83.trained, v83.pairs, v83.resized) == (2 * 46_872 * 128, 46_872 * 128, {})
    assert v98.steps == 2 * (1_000_000 // 64) == 31_250
    assert (v98.trained, v98.pairs, v98.resized) == (8_000_000, 2_000_000, {512: 4_000_000})
    assert v107.steps == 10 * (4_991 // 16) == 3_110
    assert (v107.trained, v107.pairs, v107.resized) == (3_110 * 16 * 32, 0, {512: 3_110 * 16 * 32})


def test_extraction_and_search_by_hand() -> None:
    plain, full = work("extract"), work("extract", "extract.test_time_augmentation=full")
    assert plain.described == {512: 2_050_000}
    assert full.described == {362: 4_100_000, 512: 4_100_000, 724: 4_100_000}
    assert full.resized == dict.fromkeys((362, 512, 724), 2_050_000)
    assert work("extract", "extract.target_set=q").described == {512: 50_000}
    searched = 10**12 + 1_050_000 * 10**6 + 50_000 * 10**6  # images among themselves, both sets among them, the matches
    assert work("postprocess").search_flop == 2 * 256 * searched
    assert work("postprocess").kept_bytes == pytest.approx(1_050_000 * 4 * 256, rel=0.03)


@pytest.mark.parametrize("name", ["v83", "v98", "v107"])
def test_steps_are_those_of_the_training_itself(name: str) -> None:
    chosen = getattr(load_settings("isc21").trainings, name)
    count = 1_000_000 if chosen.samples == "images" else 4_991
    assert work(f"train-{name}").steps == len(Batches(chosen, count, 0, 1))


def test_shards_are_those_that_download_plans(tmp_path: Path) -> None:
    data = DataSize(train=500, reference=301, picture_bytes=40_000)
    infos = [ObjectInfo(f"{folder}/P{number:06d}.jpg", 40_000, "") for folder, count in
             (("train_images", 500), ("reference_images", 301)) for number in range(count)]  # fmt: skip
    planned = Plan(infos, "", 4 << 20, tmp_path / "plan")
    assert shards_of(("train", "reference"), data, 4).shards == len(planned.shards) == 8


def test_a_shards_bytes_are_those_of_a_real_one(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [Picture(f"T{n:06d}", "jpg", bytes(9_999), 8, 8) for n in range(30)])
    files = shards_of(("train",), DataSize(train=30, picture_bytes=9_999), 4)
    assert files.tar_bytes == (tmp_path / "a.tar").stat().st_size
    assert files.index_bytes == pytest.approx((tmp_path / "a.csv").stat().st_size, rel=0.3)


@pytest.mark.parametrize("size", [1 << 20, 32 << 20, 70 << 20])
def test_an_upload_takes_as_many_requests_as_counted(size: int, s3: str, tmp_path: Path) -> None:
    store, sent = S3Store(f"{s3}/counted"), list[str]()
    store._client.meta.events.register("before-send.s3", lambda request, **_: sent.append(request.method))
    (tmp_path / "file").write_bytes(bytes(size))
    store.upload("file", tmp_path / "file")
    assert len(sent) == puts(size).put


def test_a_checkpoint_is_as_large_as_the_state_that_a_training_saves(small_photos: Path, tmp_path: Path) -> None:
    chosen = training("v83", "epochs=2", "restart_epoch=1")
    run, hooks = build_trainer(chosen, world=World(0, 1, torch.device("cpu"))), silent()
    hooks.save = lambda _, state: torch.save(state, tmp_path / "state.pt")
    run.compute = run.compute.model_copy(update={"checkpoint_every_steps": 5})
    train(run, samples(chosen, small_photos), hooks)
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    state = sum(tensor.nbytes for tensor in run.model.state_dict().values())
    counted = work("train-v83")
    model = TABLES.measured.backbone("tf_efficientnetv2_m.in21k_ft_in1k")
    beside = counted.checkpoint_bytes - model.state_bytes - 4 * model.parameters - 46_872 * 120
    assert beside == 20_000 * (4 * 256 + 8)
    found = (tmp_path / "state.pt").stat().st_size
    assert found == pytest.approx(state + 4 * parameters + 70 * (4 * 16 + 8), abs=90_000)  # names, generator, zip


def test_too_few_pictures_are_said_as_the_training_says_it() -> None:
    with pytest.raises(DataError, match="15 pairs are fewer than one global batch of 16 of train-v107"):
        work("train-v107", data=DataSize(pairs=15))


def test_gpus_bind_where_everything_else_is_plenty() -> None:
    stages = predicted(nodes=2, gpu="v100", disk_gb_per_s=20.0)
    assert {stages[f"train-{name}"].binds for name in ("v83", "v86", "v98", "v107")} == {GPU}
    assert stages["postprocess"].binds == CPU
    assert stages["download"].binds == ROUND_TRIPS


@pytest.mark.parametrize(
    ("scarce", "stage", "resource"),
    [
        ({"cores": 4}, "train-v83", INPUT),
        ({"cores": 8}, "extract", INPUT),
        ({"network_gbit_per_s": 5.0}, "train-v83", NETWORK),
        ({"store_gbit_per_s": 0.1}, "extract", STORE),
        ({"store_gbit_per_s": 0.1}, "download", STORE),
        ({"disk_gb_per_s": 0.02}, "train-v83", DISK),
        ({"gpu": "h100"}, "train-v83", LAUNCHES),
    ],
)
def test_what_is_scarce_binds_and_takes_longer(scarce: dict[str, float], stage: str, resource: str) -> None:
    plenty, short = predicted(nodes=2)[stage], predicted(nodes=2, **scarce)[stage]  # type: ignore[arg-type]
    assert short.binds == resource
    if resource != LAUNCHES:
        assert plenty.binds != resource
        assert short.seconds.low > plenty.seconds.low
        assert short.resources[resource].middle > plenty.resources[resource].middle


def test_more_nodes_take_no_longer_and_no_fewer_gpu_hours() -> None:
    shared = [f"trainings.{name}.global_batch=128" for name in ("v98", "v107")]
    by_nodes = [predicted(*shared, nodes=nodes) for nodes in (1, 2, 4)]
    for fewer, more in pairwise(by_nodes):
        for stage in ("train-v86", "train-v98", "train-v107", "extract"):
            before, after = fewer[stage].seconds, more[stage].seconds
            assert after.low <= before.low, stage
            assert 2 * after.low >= before.low, stage
            assert more[stage].resources[GPU].low == pytest.approx(fewer[stage].resources[GPU].low / 2)


def test_faster_gpus_take_less_and_every_bound_is_ordered() -> None:
    hours = [sum(p.seconds.low for p in predicted(gpu=gpu).values()) for gpu in ("v100", "a100", "h100")]
    assert hours == sorted(hours, reverse=True)
    for prediction in predicted(nodes=2).values():
        times = [prediction.seconds, prediction.checkpoint, prediction.checkpoints, *prediction.resources.values()]
        assert all(0 <= time.low <= time.high for time in times)


def test_the_published_network_at_its_size_has_the_published_speed() -> None:
    small = ["model.backbone=tf_efficientnetv2_s.in1k", "trainings.v83.input_size=300", "extract.input_size=384"]
    stages = predicted(*small)
    trained, described = (stages[name].resources[GPU] for name in ("train-v83", "extract"))
    pictures = 46_872 * 256 / 8 / 3600
    assert [pictures / (time / 3600) for time in (trained.high, trained.low)] == pytest.approx([825, 950])
    assert 2_050_000 / 8 / described.high == pytest.approx(1674)


def test_memory_of_a_gpu_explains_how_many_the_original_took() -> None:
    """v107 ran on 16 GPUs of 32 GB: a pair and 30 negatives of 512 pixels each; two of these do not fit."""
    assert predicted(nodes=2, gpu="v100")["train-v107"].gpu_memory_gb < 32 < predicted()["train-v107"].gpu_memory_gb


def test_nodes_that_do_not_divide_a_batch_are_refused() -> None:
    with pytest.raises(UsageError, match=r"v107.global_batch 16 is not divisible by 32 processes"):
        predicted(nodes=4)


def test_checkpoints_are_counted_by_the_setting() -> None:
    assert predicted("compute.checkpoint_every_steps=500")["train-v83"].checkpoints == Bounds(93, 93)
    often = predicted("compute.mean_hours_between_failures=1")["train-v86"].checkpoints
    seldom = predicted("compute.mean_hours_between_failures=100")["train-v86"].checkpoints
    assert often.low > 5 * seldom.low > 0


def test_costs_between_measured_sizes_lie_between() -> None:
    costs = {256: Bounds(10, 12), 512: Bounds(40, 48)}
    assert at_size(costs, 256) == Bounds(10, 12)
    assert at_size(costs, 384).low == pytest.approx(10 + 30 * (384**2 - 256**2) / (512**2 - 256**2))
    assert at_size(costs, 600).low > 40


def test_unknown_backbones_are_refused() -> None:
    with pytest.raises(UsageError, match="'resnet50' is not in the table"):
        work("train-v83", "model.backbone=resnet50")


def test_the_command_prints_what_it_predicts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["estimate", "--gpu", "v100", "--nodes", "1", "--price", "2"]) == 0
    said = capsys.readouterr().out
    assert "isc21: trainings on 1 x 8 NVIDIA V100 32 GB, extraction on 8" in said
    assert "train-v107: 43 GB on each GPU of 32 GB: take more GPUs" in said
    assert cli.main(["estimate", "--gpu", "v100", "--nodes", "1", "--price", "2", "--json"]) == 0
    stages = {stage["stage"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    v83 = stages["train-v83"]
    assert v83["binds"] == GPU
    assert v83["gpu_hours"][0] == pytest.approx(8 * v83["hours"][0])
    assert v83["cost"][0] == pytest.approx(2 * v83["gpu_hours"][0], rel=0.01)
    assert stages["download"]["requests"]["get"] == pytest.approx(2_100_000, rel=0.01)


def test_the_command_needs_neither_torch_nor_a_store() -> None:
    code = (
        "import sys; from isc_jobs import cli; cli.main(['estimate', '--json', '--failures-per-node-day', '1', "
        "'--runs', '1']); print({'torch', 'numpy', 'boto3'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


def a_source(folder: Path, **counts: int) -> Path:
    """Files of 1,000 bytes and more in the sets' folders, and a ground truth with a distractor."""
    for name, count in counts.items():
        (folder / name).mkdir()
        for number in range(count):
            (folder / name / f"P{name[0]}{len(name)}{number}.jpg").write_bytes(bytes(1_000 + 2 * number))
    (folder / "train_images" / ".hidden").write_text("")
    (folder / "ground_truth_phase1.csv").write_text("query_id,reference_id\nPq120,Pr160\nPq121,\nPq122,Pr162\n")
    return folder


def test_a_source_is_counted_as_download_plans_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = a_source(tmp_path, train_images=31, reference_images=21, query_images=11, query_images_phase2=5)
    mean = sum(1_000 + 2 * number for count in (31, 21, 11, 5) for number in range(count)) // 68
    opened = open_source(str(source))
    data = size_of(opened, opened.list(), 4)
    assert data == DataSize(
        train=31, reference=21, query_phase1=11, query_phase2=5, pairs=2, picture_bytes=mean
    )  # fmt: skip
    smaller = ["trainings.v107.global_batch=1", *(f"trainings.{name}.global_batch=8" for name in ("v83", "v86", "v98"))]
    given = ["--profile", "demo", "--source", str(source), "--json", *(f"--set={change}" for change in smaller)]
    assert cli.main(["estimate", *given]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["work"]["verified"] == 68
    assert cli.main(["estimate", *given, "--references", "1000"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["work"]["verified"] == 68 - 21 + 1000


def test_a_source_without_queries_is_counted(tmp_path: Path) -> None:
    data = DataSize(train=500, reference=300, query_phase1=0, query_phase2=0)
    assert work("extract", data=data).described == {512: 800}
    assert shards_of(("query_phase1",), data, 4).fetches.get == 0
    opened = open_source(str(a_source(tmp_path, train_images=3, reference_images=3)))
    with pytest.raises(DataError, match="'Pq120' is not among the 0 query pictures"):
        size_of(opened, opened.list(), 4)
