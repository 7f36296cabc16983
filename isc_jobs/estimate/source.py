"""How much a source holds, by its listing and ground truth: what download would plan."""

import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from isc_jobs.estimate.work import DataSize
from isc_jobs.stages.ground_truth import read_ground_truth
from isc_jobs.stages.sharding import Plan
from isc_jobs.store.port import ObjectInfo
from isc_jobs.store.source import Source


def size_of(source: Source, listed: Iterable[ObjectInfo], shard_megabytes: int) -> DataSize:
    """Of what a source ``listed``, count pictures, their mean bytes, and the pairs of phase 1; no picture is read.

    Raises UsageError or DataError for what download would refuse by the listing or the ground truth.
    """
    with tempfile.TemporaryDirectory(prefix="isc-jobs-") as folder:
        plan = Plan(iter(listed), source.uri, shard_megabytes << 20, Path(folder) / "plan")
        with closing(plan):
            counts: Counter[str] = Counter()
            for shard in plan.shards:
                counts[shard.set] += shard.count
            pairs = [row for row in read_ground_truth(source, plan).get("phase1", []) if row[1]]
            return DataSize(
                train=counts["train"], reference=counts["reference"], query_phase1=counts["query_phase1"],
                query_phase2=counts["query_phase2"], pairs=len(pairs), picture_bytes=max(1, plan.bytes // plan.total),
            )  # fmt: skip
