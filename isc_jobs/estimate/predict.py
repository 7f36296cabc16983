"""How long each stage takes: what each resource needs for its work, of which the slowest binds."""

import math
from dataclasses import dataclass

from isc_jobs.estimate.bounds import Bounds, exactly, slowest, total
from isc_jobs.estimate.machine import Machine
from isc_jobs.estimate.tables import Tables, at_size
from isc_jobs.estimate.work import DataSize, Requests, Work, pods_of, puts, scratch_bytes, work_of
from isc_jobs.spec.checkpoint_interval import checkpoint_interval
from isc_jobs.spec.pipeline import build_pipeline
from isc_jobs.spec.quantity import amount
from isc_jobs.spec.settings import Settings, StagePods
from isc_jobs.store.port import CONNECTIONS

GPU, LAUNCHES, INPUT = "GPU arithmetic", "kernel launches", "input on CPU cores"
CPU, NETWORK, STORE = "CPU arithmetic", "network between nodes", "store bandwidth"
ROUND_TRIPS, DISK, CLIENT = "store round trips", "disk", "store client"
# Requests a second of a running stage: each pod's progress, every 5 s; the controller's looks at progress and commit,
# every 30 s of what lasts long, at the wish to cancel, every 5 s, and its lease, every 20 s.
_WATCHED = Requests(get=0.2 + 2 / 30 + 0.05, put=0.05)
_WATCHED_POD = Requests(get=1 / 30, put=0.2)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Of one stage; times in seconds."""

    work: Work
    resources: dict[str, Bounds]  # what each would take alone
    start: Bounds  # before the first work, and fetches that nothing hides
    checkpoint: Bounds  # for which training stands still for one
    checkpoints: Bounds  # how many
    seconds: Bounds
    gpus: int
    cores: float
    gpu_memory_gb: float  # of each GPU
    scratch_gb: float  # of each pod
    requests: Requests

    @property
    def binds(self) -> str:
        """The resource that takes longest."""
        return max(self.resources, key=lambda name: self.resources[name].middle)


def predict_run(settings: Settings, data: DataSize, machine: Machine, tables: Tables) -> list[Prediction]:
    """Of every stage of the pipeline, in its order."""
    pipeline = build_pipeline(settings, "", "")
    return [predict(work_of(stage, settings, data, tables), settings, machine, tables) for stage in pipeline]


def predict(work: Work, settings: Settings, machine: Machine, tables: Tables) -> Prediction:
    """Of one stage."""
    room = _Room(work, settings, machine, tables)
    resources, start = getattr(room, work.program)()
    busy, checkpoint = slowest(resources.values()), room.checkpoint()
    count = room.checkpoints(busy, checkpoint)
    seconds = busy + start + checkpoint * count
    pods = room.pods.pods
    watched = (_WATCHED + _WATCHED_POD * pods) * seconds.middle
    written = Requests(put=checkpoint_puts(work), list=2) * count.middle
    return Prediction(
        work=work, resources=resources, start=start, checkpoint=checkpoint, checkpoints=count, seconds=seconds,
        gpus=room.pods.gpus * pods, cores=room.cores, gpu_memory_gb=room.gpu_memory() / 1e9,
        scratch_gb=scratch_bytes(work) / 1e9, requests=work.requests + watched + written,
    )  # fmt: skip


def checkpoint_puts(work: Work) -> float:
    """Requests that write one checkpoint and its marker."""
    return puts(work.checkpoint_bytes).put + 1


class _Room:
    """A stage's work among its pods."""

    def __init__(self, work: Work, settings: Settings, machine: Machine, tables: Tables) -> None:
        self.work, self.settings, self.machine = work, settings, machine
        self.measured, self.assumed, self.tables = tables.measured, tables.hardware.assumed, tables
        self.pods: StagePods = pods_of(settings, work.program)
        self.cores = self.pods.pods * amount(self.pods.cpu)
        self.model = self.measured.backbone(settings.model.backbone)

    def train(self) -> tuple[dict[str, Bounds], Bounds]:
        work, compute = self.work, self.settings.compute
        loaders = compute.processes * max(1, compute.loader_workers)
        flop = 3 * work.trained * self.model.forward_flop(work.size)
        resources = self._arithmetic(flop, "train", loaders, compute.processes)
        if self.pods.gpus:
            resources[LAUNCHES] = self._launches(compute.processes)
        nodes = self.pods.pods
        if nodes > 1:
            moved = work.steps * 2 * (nodes - 1) / nodes * 4 * self.model.parameters
            resources[NETWORK] = moved / (self.assumed.network_share * (self.machine.network_gbit_per_s * 1e9 / 8))
        resources[DISK] = self._from_disk() / (self.machine.disk_gb_per_s * 1e9)
        fetching = exactly(
            work.fetched_bytes / (self._link() * 1e9)
        )  # by all processes of a node, before the first step
        return resources, self.assumed.start_s + fetching + self._hashing(compute.processes)

    def extract(self) -> tuple[dict[str, Bounds], Bounds]:
        work, pods = self.work, self.pods.pods
        loaders = pods * max(1, self.settings.compute.loader_workers)
        flop = sum(count * self.model.forward_flop(size) for size, count in work.described.items())
        resources = self._arithmetic(flop, "describe", loaders, pods)
        if self.pods.gpus:
            started = work.steps / pods * self.model.operations / 3  # the forward pass alone
            resources[LAUNCHES] = self.assumed.launch_us * (started / 1e6)
        fetching = work.fetched_bytes / (self._streams() * 1e9)
        resources[STORE] = fetching
        resources[DISK] = exactly(work.drawn_bytes / pods / (self.machine.disk_gb_per_s * 1e9))
        return resources, self.assumed.start_s + fetching + self._hashing(pods)  # a shard, before it is described

    def download(self) -> tuple[dict[str, Bounds], Bounds]:
        work, pods, workers = self.work, self.pods.pods, self.settings.compute.download_workers
        costs = self.measured.cpu_ms
        hashing = work.hashed_bytes / (self.measured.per_core.sha256_gb_per_s * 1e9)
        client = costs.requested * (work.verified / 1000) * self.assumed.core
        cpu = (costs.verified * (work.verified / 1000) + hashing) * self.assumed.core + client
        moved = (work.fetched_bytes * pods + work.stored_bytes) / pods
        resources = {
            INPUT: cpu / min(self.cores, pods * workers),
            CLIENT: client / pods,  # the client is Python, of which one thread of a process runs at a time
            ROUND_TRIPS: self.assumed.request_s * (work.verified / (pods * workers)),
            STORE: exactly(moved / (self._link() * 1e9)),
            DISK: exactly(2 * work.stored_bytes / pods / (self.machine.disk_gb_per_s * 1e9)),
        }
        return resources, self.assumed.start_s

    def postprocess(self) -> tuple[dict[str, Bounds], Bounds]:
        return self._search()

    def evaluate(self) -> tuple[dict[str, Bounds], Bounds]:
        return self._search()

    def _search(self) -> tuple[dict[str, Bounds], Bounds]:
        """Search on all cores, after the descriptors are there."""
        work, rates = self.work, self.measured.per_core
        search = work.search_flop / (rates.search_gflop_per_s * 1e9) + work.pairs_flop / (rates.pairs_gflop_per_s * 1e9)
        hashing = work.hashed_bytes / (rates.sha256_gb_per_s * 1e9)
        fetching = work.fetched_bytes / (self._streams() * 1e9)
        resources = {CPU: search * self.assumed.core / self.cores, STORE: fetching}
        return resources, self.assumed.start_s + fetching + hashing

    def _arithmetic(self, flop: float, kind: str, loaders: int, processes: int) -> dict[str, Bounds]:
        """Of the network, and of its input: on GPUs beside one another, on processors both on the same cores."""
        read = self._input()
        fed = read / min(self.cores, loaders)
        if self.pods.gpus and self.machine.gpu is not None:
            return {GPU: flop / (self.tables.flop_per_s(self.machine.gpu, kind) * processes), INPUT: fed}
        rates = self.measured.per_core
        rate = rates.train_gflop_per_s if kind == "train" else rates.describe_gflop_per_s
        return {CPU: (flop / (rate * 1e9) * self.assumed.core + read) / self.cores, INPUT: fed}

    def _hashing(self, processes: int) -> Bounds:
        """Seconds of verifying what was fetched, which the processes share."""
        seconds = self.work.hashed_bytes / (self.measured.per_core.sha256_gb_per_s * 1e9 * processes)
        return seconds * self.assumed.core

    def _input(self) -> Bounds:
        """Core seconds of pictures."""
        work, costs = self.work, self.measured.cpu_ms
        pictures = [at_size(costs.resized, size) * (count / 1000) for size, count in work.resized.items()]
        if work.pairs:
            pictures.append(at_size(costs.pair, work.size) * (work.pairs / 1000))
        return total(pictures) * self.assumed.core

    def _launches(self, processes: int) -> Bounds:
        """The host starts every operation of a step; batch norms wait for each other, forwards and backwards."""
        step = self.assumed.launch_us * self.model.operations
        if processes > 1:
            between = self.pods.pods > 1
            wait = self.assumed.collective_between_nodes_us if between else self.assumed.collective_us
            step += wait * (2 * self.model.batch_norms)
        return step * (self.work.steps / 1e6)

    def _from_disk(self) -> Bounds:
        """Bytes that a node's disk gives: each once, and again what the pod's memory, or half of it, does not keep."""
        work, memory = self.work, amount(self.pods.memory)
        again = work.drawn_bytes / self.pods.pods
        missed = [max(0.0, 1 - kept / work.fetched_bytes) for kept in (memory, memory / 2)]
        return Bounds(*(work.fetched_bytes + again * share for share in missed))

    def _link(self) -> float:
        """GB a second between a pod and the store."""
        return self.machine.store_gbit_per_s / 8 / self.machine.pods_per_node(self.pods)

    def _streams(self) -> Bounds:
        """The same for one process, whose connections are few."""
        streams = self.assumed.connection_mb_per_s * (CONNECTIONS / 1000)
        return Bounds(min(streams.low, self._link()), min(streams.high, self._link()))

    def checkpoint(self) -> Bounds:
        """Seconds that training stands still for one: it is copied, and then written beside the training."""
        size = self.work.checkpoint_bytes
        return size / (self.measured.per_core.copied_gb_per_s * 1e9) * self.assumed.core if size else exactly(0.0)

    def checkpoints(self, busy: Bounds, cost: Bounds) -> Bounds:
        """How many a training writes."""
        compute = self.settings.compute
        if not self.work.checkpoint_bytes:
            return exactly(0.0)
        if compute.checkpoint_every_steps != "auto":
            return exactly((self.work.steps - 1) // compute.checkpoint_every_steps)
        between = compute.mean_hours_between_failures * 3600
        counts = [math.floor(time / checkpoint_interval(each, between))
                  for time, each in ((busy.low, cost.low), (busy.high, cost.high))]  # fmt: skip
        return Bounds(min(counts), max(counts))

    def gpu_memory(self) -> float:
        """Bytes on each GPU: activations of its part of a step, weights, gradients and momentum."""
        if not self.pods.gpus or not self.work.trained:
            return 0.0
        pixels = self.work.batch / self.settings.compute.processes * self.work.size**2
        return pixels * self.model.activation_bytes_per_pixel + self.model.state_bytes + 8 * self.model.parameters
