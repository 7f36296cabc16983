"""Postprocess: DBA of the training descriptors, negative embedding subtraction, top 10."""

import sys
from typing import Any

from isc_jobs.retrieval.search import l2_neighbours
from isc_jobs.retrieval.submission import Descriptors, read_descriptors, write_descriptors, write_matches
from isc_jobs.retrieval.subtraction import smooth, subtract_negatives
from isc_jobs.spec.settings import Postprocess
from isc_jobs.stages.runner import Context, run_stage

DESCRIPTORS = "v107_iso.h5"
MATCHES = "v107_iso.csv"


def body(ctx: Context) -> dict[str, Any]:
    """Write both submission files."""
    settings = Postprocess.model_validate(ctx.spec.settings["postprocess"])
    path = ctx.input("extract").path("descriptors.h5")
    train, queries, references = (read_descriptors(path, name) for name in ("train", "query", "reference"))
    ctx.progress(0, 4)
    negatives = smooth(train.rows, settings.dba_neighbours, settings.dba_power)
    ctx.progress(1, 4)
    sharpened = []
    for done, part in enumerate((queries, references), start=2):
        rows = subtract_negatives(part.rows, negatives, settings.negative_neighbours, settings.beta)
        sharpened.append(Descriptors(part.ids, rows))
        ctx.progress(done, 4)
    queries, references = sharpened
    write_descriptors(ctx.out / DESCRIPTORS, queries, references)
    write_matches(
        ctx.out / MATCHES, queries.ids, references.ids, l2_neighbours(queries.rows, references.rows, settings.top_k)
    )
    ctx.progress(4, 4)
    return {"query": len(queries.ids), "reference": len(references.ids), "train": len(train.ids)}


if __name__ == "__main__":
    sys.exit(run_stage("postprocess", body))
