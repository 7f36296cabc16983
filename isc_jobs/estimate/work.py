"""What each stage has to do, counted from the settings: steps, pictures, bytes, objects. No machine, no speed."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from isc_jobs.estimate.tables import Tables
from isc_jobs.spec.errors import DataError
from isc_jobs.spec.pipeline import Stage
from isc_jobs.spec.settings import Settings, StagePods, Training
from isc_jobs.store.checkpoints import KEPT
from isc_jobs.store.port import PART_BYTES

_BLOCK, _RECORD = 512, 10_240  # of a tar
_INDEX_BYTES = 46  # of a picture, in a shard's index
_HISTORY_BYTES = 120  # of a step, in a checkpoint
_ID_BYTES = {"query": 6, "reference": 7, "train": 7}
_LISTED = 1000  # objects in one answer of a store


@dataclass(frozen=True, kw_only=True)
class DataSize:
    """How many pictures; as DISC21 has them if not said otherwise."""

    train: int = 1_000_000
    reference: int = 1_000_000
    query_phase1: int = 50_000
    query_phase2: int = 50_000
    pairs: int = 4_991  # of queries of phase 1 and their originals
    picture_bytes: int = 167_000  # on average: 350 GB in 2.1 million

    def count(self, set_: str) -> int:
        """Pictures of a set as download names it."""
        return {
            "train": self.train, "reference": self.reference,
            "query_phase1": self.query_phase1, "query_phase2": self.query_phase2,
        }[set_]  # fmt: skip

    @property
    def total(self) -> int:
        """Of all four sets."""
        return sum(self.count(name) for name in SETS)


SETS = ("train", "reference", "query_phase1", "query_phase2")


@dataclass(frozen=True, kw_only=True)
class Requests:
    """To the store and the source; deleting costs nothing and is left out."""

    get: float = 0.0
    put: float = 0.0
    list: float = 0.0

    def __add__(self, other: "Requests") -> "Requests":
        """Of both."""
        return Requests(get=self.get + other.get, put=self.put + other.put, list=self.list + other.list)

    def __mul__(self, times: float) -> "Requests":
        """So many times."""
        return Requests(get=self.get * times, put=self.put * times, list=self.list * times)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Of one stage."""

    stage: str
    program: str
    steps: int = 0
    batch: int = 0  # pictures of a step, over all processes
    size: int = 0  # pixels a side
    trained: int = 0  # pictures through forward and backward pass
    described: dict[int, int] = field(default_factory=dict)  # pictures through the forward pass alone, by size
    pairs: int = 0  # of views
    resized: dict[int, int] = field(default_factory=dict)
    verified: int = 0
    search_flop: float = 0.0
    pairs_flop: float = 0.0
    drawn_bytes: float = 0.0  # of pictures, read from the disk in random order
    hashed_bytes: float = 0.0  # by all pods
    fetched_bytes: float = 0.0  # from store or source, by each pod
    stored_bytes: float = 0.0  # to the store, by all pods
    kept_bytes: float = 0.0  # output that stays
    checkpoint_bytes: float = 0.0  # of one
    requests: Requests = field(default_factory=Requests)


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Shards of some sets: how many, with how many bytes in all."""

    shards: int
    tar_bytes: float
    index_bytes: float

    @property
    def total_bytes(self) -> float:
        return self.tar_bytes + self.index_bytes

    @property
    def fetches(self) -> Requests:
        if not self.shards:
            return Requests()
        return (gets(self.tar_bytes / self.shards) + gets(self.index_bytes / self.shards)) * self.shards

    @property
    def uploads(self) -> Requests:
        if not self.shards:
            return Requests()
        return (puts(self.tar_bytes / self.shards) + puts(self.index_bytes / self.shards)) * self.shards


def gets(size: float) -> Requests:
    """To fetch a file: a look at it, then each part."""
    return Requests(get=1 + (math.ceil(size / PART_BYTES) if size >= PART_BYTES else 1))


def puts(size: float) -> Requests:
    """To upload a file: at once, or begin, parts, end."""
    return Requests(put=math.ceil(size / PART_BYTES) + 2 if size >= PART_BYTES else 1)


def shards_of(sets: Iterable[str], data: DataSize, shard_megabytes: int) -> _Files:
    """As download packs the sets, if all pictures had the average size."""
    each = max(1, (shard_megabytes << 20) // data.picture_bytes)
    block = _BLOCK * (1 + math.ceil(data.picture_bytes / _BLOCK))
    shards, tars, indexes = 0, 0.0, 0.0
    for count in (data.count(name) for name in sets):
        full, rest = divmod(count, each)
        for pictures, times in ((each, full), (rest, 1 if rest else 0)):
            shards += times
            tars += times * math.ceil((pictures * block + 2 * _BLOCK) / _RECORD) * _RECORD
        indexes += count * _INDEX_BYTES
    return _Files(shards=shards, tar_bytes=tars, index_bytes=indexes)


def work_of(stage: Stage, settings: Settings, data: DataSize, tables: Tables) -> Work:
    """Of a stage of the pipeline that ``build_pipeline`` makes of the settings."""
    return _COUNTED[stage.program](stage, settings, data, tables)


def _download(stage: Stage, settings: Settings, data: DataSize, _: Tables) -> Work:
    files = shards_of(SETS, data, settings.data.shard_megabytes)
    pods = settings.cluster.stages.download.pods
    read = data.total * data.picture_bytes
    markers = Requests(put=files.shards, get=files.shards * (pods - 1) / pods)
    listed = Requests(list=math.ceil(data.total / _LISTED))
    return Work(
        stage=stage.name, program="download", verified=data.total, fetched_bytes=read / pods,
        stored_bytes=files.total_bytes, kept_bytes=files.total_bytes, hashed_bytes=files.total_bytes,
        requests=Requests(get=data.total) + listed + files.uploads + markers,
    )  # fmt: skip


def sets_of(training: Training) -> list[str]:
    """The sets of which a training reads pictures."""
    sets = ["train"] if training.samples == "images" else ["query_phase1", "reference"]
    return list(dict.fromkeys([*sets, *(["reference"] if training.extra_negatives else [])]))


def _train(stage: Stage, settings: Settings, data: DataSize, tables: Tables) -> Work:
    training: Training = getattr(settings.trainings, stage.name.removeprefix("train-"))
    samples = data.train if training.samples == "images" else data.pairs
    steps = training.epochs * training.steps_per_epoch(samples)
    if not steps:
        raise DataError(
            f"{samples} {training.samples} are fewer than one global batch of {training.global_batch} of {stage.name}: "
            "estimate for more data, or lower its global_batch"
        )
    seen = steps * training.global_batch
    batch = training.global_batch * (2 + training.extra_negatives)
    plain = seen * (batch // training.global_batch - (2 if training.views else 0))
    files = shards_of(sets_of(training), data, settings.data.shard_megabytes)
    pods = settings.cluster.stages.train.pods
    read = plain + (seen * (1 + training.views.overlay_probability) if training.views else 0)
    model = tables.measured.backbone(settings.model.backbone)
    output = model.state_bytes + 4 * model.parameters  # with the optimiser's momentum
    memory = training.memory_size * (4 * settings.model.dimensions + 8)
    return Work(
        stage=stage.name, program="train", steps=steps, batch=batch, size=training.input_size, trained=steps * batch,
        pairs=seen if training.views else 0, resized={training.input_size: plain} if plain else {},
        drawn_bytes=read * data.picture_bytes, fetched_bytes=files.total_bytes,
        hashed_bytes=files.total_bytes * pods,
        stored_bytes=output, kept_bytes=output, requests=files.fetches * pods + puts(output),
        checkpoint_bytes=output + memory + steps * _HISTORY_BYTES,
    )  # fmt: skip


def _chosen(settings: Settings) -> dict[str, str]:
    """Sets that extraction describes: what descriptors name them, and download."""
    names = {"q": ("query", f"query_{settings.extract.queries}"), "r": ("reference",) * 2, "t": ("train",) * 2}
    return dict(names[letter] for letter in settings.extract.target_set)


def _rows_bytes(settings: Settings, data: DataSize, names: Iterable[str]) -> float:
    """Of descriptors with their ids."""
    counts = {"query": _queries(settings, data), "reference": data.reference, "train": data.train}
    return sum(counts[name] * (4 * settings.model.dimensions + _ID_BYTES[name]) for name in names)


def _queries(settings: Settings, data: DataSize) -> int:
    """Those that are described and scored."""
    return data.count(f"query_{settings.extract.queries}")


def _extract(stage: Stage, settings: Settings, data: DataSize, _: Tables) -> Work:
    extract, chosen = settings.extract, _chosen(settings)
    pictures = sum(data.count(name) for name in chosen.values())
    full = extract.test_time_augmentation == "full"
    factors = (1 / math.sqrt(2), 1.0, math.sqrt(2)) if full else (1.0,)
    views = 1 if extract.test_time_augmentation == "none" else 2
    sizes = [round(extract.input_size * factor) for factor in factors]
    files = shards_of(chosen.values(), data, settings.data.shard_megabytes)
    pods = settings.cluster.stages.extract.pods
    output = _rows_bytes(settings, data, chosen)
    pieces = Requests(put=2 * files.shards) + Requests(get=4 * files.shards) * ((pods - 1) / pods)
    return Work(
        stage=stage.name, program="extract", size=extract.input_size,
        steps=math.ceil(pictures / extract.batch) * len(sizes) * views, batch=extract.batch,
        described=dict.fromkeys(sizes, views * pictures), resized=dict.fromkeys(sizes, pictures),
        drawn_bytes=pictures * data.picture_bytes, fetched_bytes=files.total_bytes / pods,
        hashed_bytes=files.total_bytes,
        stored_bytes=2 * output, kept_bytes=output, requests=files.fetches + pieces + puts(output),
    )  # fmt: skip


def _postprocess(stage: Stage, settings: Settings, data: DataSize, _: Tables) -> Work:
    post, dimensions = settings.postprocess, settings.model.dimensions
    queries, references, images = _queries(settings, data), data.reference, data.train
    searched = images * images + (queries + references) * images + queries * references
    searched += queries * images if post.score_normalisation is not None else 0
    read = len(stage.inputs) * _rows_bytes(settings, data, _chosen(settings))
    output = _rows_bytes(settings, data, ("query", "reference")) + queries * post.top_k * 36
    return Work(
        stage=stage.name, program="postprocess", search_flop=2.0 * dimensions * searched, fetched_bytes=read,
        hashed_bytes=read + output, stored_bytes=output, kept_bytes=output,
        requests=gets(read / len(stage.inputs)) * len(stage.inputs) + puts(output),
    )  # fmt: skip


def _evaluate(stage: Stage, settings: Settings, data: DataSize, _: Tables) -> Work:
    files = [name for name in stage.inputs if name.startswith("extract")]
    compared = 2.0 * settings.model.dimensions * _queries(settings, data) * data.reference
    read = len(files) * _rows_bytes(settings, data, _chosen(settings))
    read += _rows_bytes(settings, data, ("query", "reference"))
    return Work(
        stage=stage.name, program="evaluate", pairs_flop=compared * (len(files) + 1), search_flop=compared * len(files),
        fetched_bytes=read, hashed_bytes=read, stored_bytes=5e6, kept_bytes=5e6,
        requests=gets(read / (len(files) + 1)) * (len(files) + 1) + Requests(put=2),
    )  # fmt: skip


_COUNTED: dict[str, Callable[[Stage, Settings, DataSize, Tables], Work]] = {
    "download": _download, "train": _train, "extract": _extract, "postprocess": _postprocess, "evaluate": _evaluate,
}  # fmt: skip


def scratch_bytes(work: Work) -> float:
    """The most that a pod has on its disk: fetched shards and what it writes."""
    return work.fetched_bytes + max(
        KEPT * work.checkpoint_bytes, work.stored_bytes if work.program != "download" else 0
    )


def pods_of(settings: Settings, program: str) -> StagePods:
    """The pods of a stage's program."""
    pods: StagePods = getattr(settings.cluster.stages, program)
    return pods
