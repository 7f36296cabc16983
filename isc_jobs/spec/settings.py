"""The typed, frozen settings of a run, as YAML files state them.

No field has a default here: the profile ``isc21.yaml`` states every value once, and other
profiles extend it. Unknown keys, wrong types and impossible values are refused.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from isc_jobs.spec.environment import Environment
from isc_jobs.spec.names import DnsLabel
from isc_jobs.spec.quantity import Quantity

TRAINING_NAMES = ("v83", "v86", "v98", "v107")
LARGEST_SIZE = 4096  # pixels a side of what a model sees
_LARGEST = (1 << 63) - 1  # what torch and numpy count with
PositiveInt = Annotated[int, Field(gt=0, le=_LARGEST)]
NonNegativeInt = Annotated[int, Field(ge=0, le=_LARGEST)]
Probability = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]


class Frozen(BaseModel):
    """A value: frozen, strict, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Range(Frozen):
    """A closed interval of fractions."""

    low: NonNegativeFloat
    high: NonNegativeFloat

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Data(Frozen):
    """What download accepts and how it packs it."""

    max_bad_share: Probability  # of all images; more bad ones fail the stage
    max_pixels: PositiveInt  # an image with more is refused as a decompression bomb
    shard_megabytes: PositiveInt  # of pictures in one tar, at most


class Model(Frozen):
    """Backbone and descriptor head."""

    backbone: str  # timm name; old names are resolved
    pretrained: str  # "hub", "none", "package:NAME" or a file of backbone weights
    gem_p: PositiveFloat  # power of the pooling in training; 1: the mean
    gem_eval_p: PositiveFloat  # the same when descriptors are computed
    dimensions: Annotated[int, Field(gt=0, le=256)]  # of a descriptor; the challenge allows 256
    head: Literal["random", "whitened"]  # where the projection begins: random, or PCA whitening of training images


class Views(Frozen):
    """Strength of the hard view; the moderate view has no settings."""

    probability: Probability  # rotation, perspective, text, emoji
    encoding_probability: Probability  # JPEG re-encoding
    edge_probability: Probability  # edge enhancement
    fixed_probability: Probability  # pixelization, shuffled pixels, grayscale, blur
    erase_probability: Probability  # a rectangle of random pixels
    jitter: Probability  # brightness, contrast, saturation
    overlay_probability: Probability  # of laying a picture over another, instead of a hard crop
    overlay_size: Range  # of the background's height
    overlay_min_opacity: Probability  # of the picture on top


class Training(Frozen):
    """One of the four trainings; all run the same loop."""

    start: str  # "pretrained" or the name of an earlier training
    samples: Literal["images", "pairs"]  # training images, or ground-truth pairs of phase 1
    views: Views | None  # None: plain resize, as at evaluation
    extra_negatives: NonNegativeInt  # random references per sample, as negatives only
    sample_size: PositiveInt | None  # samples per epoch, repeating the data if need be; None: each once
    epochs: PositiveInt  # run: results after these are used
    schedule_epochs: PositiveInt  # length of the learning-rate schedule
    restart_epoch: PositiveInt | None  # from here on the next seed, with an empty memory
    # Of the views and the order; the second from restart_epoch on.
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=2, strict=False)]
    global_batch: PositiveInt  # samples per step over all processes
    input_size: Annotated[int, Field(ge=32, le=LARGEST_SIZE)]  # pixels a side
    lr: Annotated[float, Field(gt=0, le=1e30)]  # on the global mean loss, whatever the number of processes
    lr_schedule: Literal["constant", "linear"]  # linear: to 0 over schedule_epochs, by epoch
    momentum: Probability  # of SGD
    weight_decay: NonNegativeFloat  # not of vectors
    positive_margin: NonNegativeFloat  # equal labels are pulled together down to this distance
    negative_margin: PositiveFloat  # others are pushed apart up to this distance
    memory_size: PositiveInt  # embeddings of the last steps that a batch is compared with
    batch_norm: Literal["train", "frozen"]  # frozen: all statistics of the start are kept
    koleo_weight: NonNegativeFloat  # of the entropy regulariser, which spreads a batch's embeddings; 0: without it
    hard_group: PositiveInt  # images near one another that share a batch; 1: batches of a uniform shuffle

    def steps_per_epoch(self, samples: int) -> int:
        """Full global batches of an epoch over so many samples."""
        return (self.sample_size or samples) // self.global_batch

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.epochs > self.schedule_epochs:
            raise ValueError(f"epochs {self.epochs} is above schedule_epochs {self.schedule_epochs}: raise that too")
        if (self.restart_epoch is None) != (len(self.seeds) == 1):
            raise ValueError("two seeds go with a restart_epoch, one seed with none")
        if self.samples == "pairs" and self.views is not None:
            raise ValueError("pairs are trained without views: set views to null")
        if self.samples == "images" and self.views is None:
            raise ValueError("images need views: state them, or set samples to pairs")
        if self.samples == "pairs" and self.hard_group > 1:
            raise ValueError(f"hard_group {self.hard_group} groups images, samples are pairs: set hard_group to 1")
        if self.global_batch % self.hard_group:
            raise ValueError(f"global_batch {self.global_batch} is not divisible by hard_group {self.hard_group}")
        return self


class Trainings(Frozen):
    """The four trainings in their order."""

    v83: Training
    v86: Training
    v98: Training
    v107: Training

    @model_validator(mode="after")
    def _starts(self) -> Self:
        for index, name in enumerate(TRAINING_NAMES):
            start = getattr(self, name).start
            allowed = ("pretrained", *TRAINING_NAMES[:index])
            if start not in allowed:
                raise ValueError(f"{name}.start is {start!r}, expected one of {', '.join(allowed)}")
        return self


class Compute(Frozen):
    """How stages use the machine; none of it may change a result beyond rounding."""

    download_workers: PositiveInt  # pictures fetched at once
    processes: PositiveInt  # of one training, each with its share of the global batch
    loader_workers: NonNegativeInt  # per process
    threads: PositiveInt  # per process, on CPU
    precision: Literal["auto", "fp32", "bf16", "fp16"]  # auto: bf16 where a GPU has it, else fp16 there; fp32 on a CPU
    compile: bool  # a training's model by torch.compile, which needs a C++ compiler on the machine
    # Of a training; auto: at the interval of Young and Daly, 30 s to 30 minutes, for what a checkpoint is seen to cost.
    checkpoint_every_steps: PositiveInt | Literal["auto"]
    mean_hours_between_failures: PositiveFloat  # of a training as a whole: lost nodes, preemptions, people
    silence_seconds: PositiveInt  # a stage that says nothing for so long hangs: it is ended and begun anew


class Extract(Frozen):
    """Which descriptors are computed, and how."""

    queries: Literal["phase1", "phase2"]  # whose queries are described and scored
    target_set: Literal["q", "r", "t", "qr", "qt", "rt", "qrt"]  # letters of queries, references, training
    input_size: Annotated[int, Field(ge=32, le=LARGEST_SIZE)]  # pixels a side
    batch: PositiveInt  # pictures at once
    # Sum over views: none; the mirror image too (2 views); full: both at input_size, over and times sqrt 2 (6 views).
    test_time_augmentation: Literal["none", "mirror", "full"]


class ScoreNormalisation(Frozen):
    """Scores of a query less ``weight`` times its mean similarity to its nearest training descriptors."""

    neighbours: PositiveInt
    weight: NonNegativeFloat


class Postprocess(Frozen):
    """Concatenation, DBA of the training descriptors, negative embedding subtraction, score normalisation."""

    # Trainings whose descriptors stand beside v107's, reduced to as many dimensions as v107's by PCA.
    concatenate: tuple[Literal["v83", "v86", "v98"], ...] = Field(strict=False)
    dba_neighbours: PositiveInt  # nearest that each training descriptor is smoothed by, itself among them
    dba_power: NonNegativeFloat  # of their similarity, as weights
    negative_neighbours: PositiveInt  # nearest training descriptors whose mean is subtracted
    beta: NonNegativeFloat  # how much of it; 0: nothing is subtracted
    score_normalisation: ScoreNormalisation | None  # {neighbours, weight}, or null: none
    top_k: PositiveInt  # references written for each query

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.concatenate)) < len(self.concatenate):
            raise ValueError(f"concatenate names a training twice: {', '.join(self.concatenate)}")
        return self


class Evaluate(Frozen):
    """Scores and the report."""

    # Scored beside v107; untrained: the backbone's pooled features, whitened: these with a whitened head.
    compare: tuple[Literal["untrained", "whitened", "v83", "v86", "v98"], ...] = Field(strict=False)
    results_per_query: PositiveInt  # of the one global cap
    gallery: NonNegativeInt  # matches, misses and false matches shown, each


class Matching(Frozen):
    """isc-jobs match: copies among the pictures of any folders."""

    top_k: PositiveInt  # references written for each query
    batch_on_cpu: PositiveInt  # on a GPU it is that of extract
    chunk: PositiveInt  # pictures whose descriptors are kept in one file
    save_seconds: PositiveInt  # after so long they are kept even if they are fewer
    precision: Probability  # a copy's score is one down to which so many are right
    sample: PositiveInt  # references of which edited copies are made to estimate the threshold
    least_sample: PositiveInt  # with fewer references nothing is estimated
    gallery: NonNegativeInt  # pairs shown as the surest, just above the threshold and just below, each


class Images(Frozen):
    """Container images, as references with a digest; null until ``make deploy`` or the user names them."""

    controller: str | None  # of a detached run
    data: str | None  # download, postprocess, evaluate
    train: str | None  # train, extract


class StagePods(Frozen):
    """The pods of one stage. Memory and GPUs are requested and limited, processors only requested."""

    pods: PositiveInt  # that share the stage's work: shards, or the processes of a training
    cpu: Quantity  # Kubernetes quantities, of each pod
    memory: Quantity  # requested and limited
    gpus: NonNegativeInt  # of each pod; of a training, pods times gpus is compute.processes
    scratch: Quantity  # size limit of the work folder
    shared_memory: Quantity  # /dev/shm, of which loader processes need much
    node_selector: dict[str, str]  # beside the cluster's
    tolerations: tuple[dict[str, Any], ...] = Field(strict=False)  # beside the cluster's


class Stages(Frozen):
    """The pods of each stage program."""

    download: StagePods
    train: StagePods
    extract: StagePods
    postprocess: StagePods
    evaluate: StagePods

    @model_validator(mode="after")
    def _alone(self) -> Self:
        for name in ("postprocess", "evaluate"):
            pods = getattr(self, name).pods
            if pods != 1:
                raise ValueError(f"{name}.pods is {pods}, but its work is not shared: set 1")
        return self


class Cluster(Frozen):
    """Where and how stages run on Kubernetes; none of it changes a result."""

    namespace: DnsLabel  # make deploy knows isc-jobs alone
    images: Images
    pull_secrets: tuple[str, ...] = Field(strict=False)  # names of Secrets for the registry
    service_account: str  # of the stages' pods, which get no token of the API server
    # Secrets with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_SESSION_TOKEN.
    s3_secret: str | None  # null: the service accounts have access
    controller_s3_secret: str | None  # of controllers in the cluster; null: s3_secret is theirs too
    environment: Environment  # as AWS_ENDPOINT_URL_S3; no secrets
    labels: dict[str, str]  # of all objects and pods
    annotations: dict[str, str]  # of all objects and pods
    node_selector: dict[str, str]  # of all pods
    tolerations: tuple[dict[str, Any], ...] = Field(strict=False)  # of all pods
    priority_class: str | None  # of all pods
    grace_seconds: PositiveInt  # for a checkpoint after SIGTERM
    pending_seconds: PositiveInt  # a pod that finds no place for so long ends the run
    stages: Stages


class Settings(Frozen):
    """Everything that decides a run's results, and the machine's share in it."""

    data: Data
    model: Model
    trainings: Trainings
    extract: Extract
    postprocess: Postprocess
    evaluate: Evaluate
    matching: Matching
    compute: Compute
    cluster: Cluster

    @model_validator(mode="after")
    def _pods_share_processes(self) -> Self:
        processes, pods = self.compute.processes, self.cluster.stages.train.pods
        if processes % pods:
            raise ValueError(f"compute.processes {processes} is not divisible by cluster.stages.train.pods {pods}")
        gpus = self.cluster.stages.train.gpus
        if gpus and processes != gpus * pods:
            raise ValueError(
                f"{pods} pods of {gpus} GPUs make {gpus * pods} processes of a training, "
                f"compute.processes is {processes}"
            )
        return self
