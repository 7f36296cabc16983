"""Postprocess: PCA of concatenated descriptors, DBA, negative embedding subtraction, score normalisation, top 10."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isc_jobs.retrieval.projection import fit_principal, reduced
from isc_jobs.retrieval.rows import Matrix
from isc_jobs.retrieval.score_normalisation import fold_bias
from isc_jobs.retrieval.search import l2_neighbours
from isc_jobs.retrieval.submission import Descriptors, read_descriptors, write_descriptors, write_matches
from isc_jobs.retrieval.subtraction import smooth, subtract_negatives
from isc_jobs.spec.errors import DataError
from isc_jobs.spec.settings import Postprocess
from isc_jobs.stages.runner import Context, run_stage

DESCRIPTORS = "v107_iso.h5"
MATCHES = "v107_iso.csv"


def body(ctx: Context) -> dict[str, Any]:
    """Write both submission files."""
    settings = ctx.spec.setting("postprocess", Postprocess)
    names = ["extract", *(f"extract-{name}" for name in settings.concatenate)]
    files = {name: ctx.input(name).path("descriptors.h5") for name in names}
    train, queries, references = _read(files)
    passes = 2 if settings.score_normalisation is None else 3  # over the queries
    searched = _Searched(ctx, len(train.ids) + len(references.ids) + passes * len(queries.ids))
    ours, theirs = _sharpened(settings, train.rows, queries.rows, references.rows, searched)
    write_descriptors(ctx.out / DESCRIPTORS, Descriptors(queries.ids, ours), Descriptors(references.ids, theirs))
    found = l2_neighbours(ours, theirs, settings.top_k, searched.report(ours))
    write_matches(ctx.out / MATCHES, queries.ids, references.ids, found)
    return {"query": len(queries.ids), "reference": len(references.ids), "train": len(train.ids)}


class _Searched:
    """Counts the rows that several searches are done with."""

    def __init__(self, ctx: Context, total: int) -> None:
        self._ctx, self._total, self._before = ctx, total, 0
        ctx.progress(0, total)

    def report(self, rows: Matrix) -> Callable[[int], None]:
        """For the next search, which has ``rows`` as its queries."""
        before = self._before
        self._before += len(rows)
        return lambda done: self._ctx.progress(before + done, self._total)


def _sharpened(
    settings: Postprocess, train: Matrix, queries: Matrix, references: Matrix, searched: _Searched
) -> tuple[Matrix, Matrix]:
    """Queries and references as they are handed in."""
    negatives = smooth(train, settings.dba_neighbours, settings.dba_power, searched.report(train))
    ours, theirs = (
        subtract_negatives(rows, negatives, settings.negative_neighbours, settings.beta, searched.report(rows))
        for rows in (queries, references)
    )
    normalisation = settings.score_normalisation
    if normalisation is None:
        return ours, theirs
    return fold_bias(
        ours, theirs, train, normalisation.neighbours, normalisation.weight, searched.report(ours)
    )  # fmt: skip


def _read(files: dict[str, Path]) -> list[Descriptors]:
    """Training, query and reference descriptors of the first file, with those of the others beside them: all reduced to
    the first's dimensions along the principal axes of the training descriptors, one set after another.
    """
    sets = ("train", "query", "reference")
    if len(files) == 1:
        return [read_descriptors(path, name) for path in files.values() for name in sets]
    ids, parts = _read_beside(files, "train")
    principal, dimensions = fit_principal(parts), parts[0].shape[1]
    described = [Descriptors(ids, reduced(parts, principal, dimensions))]
    for name in sets[1:]:
        ids, parts = _read_beside(files, name)
        described.append(Descriptors(ids, reduced(parts, principal, dimensions)))
    return described


def _read_beside(files: dict[str, Path], set_: str) -> tuple[list[str], list[Matrix]]:
    """Ids of a set as the first file orders them, and each file's rows in that order; raises DataError."""
    first, *others = ((name, read_descriptors(path, set_)) for name, path in files.items())
    ids, parts = first[1].ids, [first[1].rows]
    for name, found in others:
        places = {id_: place for place, id_ in enumerate(found.ids)}
        strange = sorted(places.keys() ^ set(ids))
        if strange:
            raise DataError(
                f"{first[0]} and {name} describe different pictures: {len(strange)} {set_} ids are in one alone, "
                f"the first is {strange[0]!r}; concatenated descriptors must be of the same pictures"
            )
        parts.append(found.rows if found.ids == ids else found.rows[[places[id_] for id_ in ids]])
    return ids, parts


if __name__ == "__main__":
    sys.exit(run_stage("postprocess", body))
