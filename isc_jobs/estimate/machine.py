"""The machines that stages run on, and settings that use so many of them."""

from dataclasses import dataclass

from isc_jobs.spec.errors import UsageError
from isc_jobs.spec.settings import TRAINING_NAMES, Settings, StagePods


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Nodes: what is between them and in them, beside the pods' processors that the settings state."""

    gpu: str | None  # a name of the hardware table; None: trainings and extraction on processors
    gpus_per_node: int = 8
    store_gbit_per_s: float = 25.0  # of a node to store and source
    network_gbit_per_s: float = 100.0  # of a node to the others
    disk_gb_per_s: float = 2.0

    def pods_per_node(self, pods: StagePods) -> float:
        """How many pods of a stage share a node's link to the store."""
        return max(1.0, min(pods.pods, self.gpus_per_node // pods.gpus)) if pods.gpus else 1.0


def on_nodes(
    settings: Settings, nodes: int | None, gpus_per_node: int | None, cores_per_node: float | None
) -> Settings:  # fmt: skip
    """Settings whose trainings and extraction use so many nodes: a training's pod on each, one of extract on each GPU.

    What is None stays as the settings say, and so do stages without GPUs. Raises UsageError for more processes than
    share a training's batch.
    """
    values = settings.model_dump(mode="json")
    train, extract = (values["cluster"]["stages"][name] for name in ("train", "extract"))
    if (nodes, gpus_per_node) != (None, None):
        pods = train["pods"] if nodes is None else nodes
        gpus = train["gpus"] if gpus_per_node is None else gpus_per_node
        values["compute"]["processes"] = pods * max(1, gpus)
        train |= {"pods": pods, "gpus": gpus}
        extract |= {"pods": pods * max(1, gpus), "gpus": min(1, gpus)}
    if cores_per_node is not None:
        train["cpu"] = f"{1000 * cores_per_node:.0f}m"
        extract["cpu"] = f"{1000 * cores_per_node / max(1, train['gpus']):.0f}m"
    changed = Settings.model_validate(values)
    check_processes(changed)
    return changed


def check_processes(settings: Settings) -> None:
    """Raises UsageError if the processes do not divide a training's batch, as the training itself would."""
    processes = settings.compute.processes
    for name in TRAINING_NAMES:
        batch = getattr(settings.trainings, name).global_batch
        if batch % processes:
            raise UsageError(
                f"trainings.{name}.global_batch {batch} is not divisible by {processes} processes, one a GPU: "
                f"take fewer nodes, or set trainings.{name}.global_batch, which changes what is trained"
            )
