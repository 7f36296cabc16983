"""Postprocess and the ten nearest, beside the recipe step by step in numpy and faiss; descriptors of random copies."""

import argparse
import statistics
import time
from collections.abc import Callable

import faiss
import numpy as np

from isc_jobs.retrieval.search import Matrix, l2_neighbours
from isc_jobs.retrieval.subtraction import normalised, smooth, subtract_negatives
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Postprocess

DIMENSIONS = 256
Found = tuple[np.ndarray[tuple[int, ...], np.dtype[np.floating]], np.ndarray[tuple[int, ...], np.dtype[np.int64]]]
Steps = Callable[[Postprocess, Matrix, Matrix, Matrix], Found]


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=20_000)
    parser.add_argument("--references", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    settings = load_settings("isc21").postprocess
    data = descriptors(arguments.train, arguments.references, arguments.queries)
    seconds: dict[Steps, list[float]] = {ours: [], theirs: []}
    found = {}
    for _ in range(arguments.rounds):
        for steps, values in seconds.items():
            began = time.perf_counter()
            found[steps] = steps(settings, *data)
            values.append(time.perf_counter() - began)
    same = float((found[ours][1] == found[theirs][1]).mean())
    apart = float(np.abs(found[ours][0] - found[theirs][0]).max())
    first, second = (statistics.median(values) for values in seconds.values())
    name = (
        f"postprocess, top 10: {arguments.train} train, {arguments.references} references, {arguments.queries} queries"
    )
    print(f"| {name} | isc-jobs, s | numpy + faiss, s | ratio | same ids | scores apart |\n|---|---|---|---|---|---|")
    print(f"| | {first:.2f} | {second:.2f} | {second / first:.2f} | {same:.2%} | {apart:.1e} |")


def descriptors(train: int, references: int, queries: int) -> tuple[Matrix, Matrix, Matrix]:
    """Rows of length 1 in groups, as those of pictures are; every fifth query is near a reference."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(500, DIMENSIONS))

    def some(count: int) -> Matrix:
        return normalised(0.5 * centres[rng.integers(len(centres), size=count)] + rng.normal(size=(count, DIMENSIONS)))

    first, second, third = some(train), some(references), some(queries)
    third[::5] = normalised(second[: len(third[::5])] + 0.6 * third[::5])
    return first, second, third


def ours(settings: Postprocess, train: Matrix, references: Matrix, queries: Matrix) -> Found:
    """The stage's own steps."""
    negatives = smooth(train, settings.dba_neighbours, settings.dba_power)
    sharpened = [
        subtract_negatives(rows, negatives, settings.negative_neighbours, settings.beta)
        for rows in (queries, references)
    ]
    found = l2_neighbours(sharpened[0], sharpened[1], settings.top_k)
    return found.scores, found.positions


def theirs(settings: Postprocess, train: Matrix, references: Matrix, queries: Matrix) -> Found:
    """The recipe, a step a line, in float32."""
    index = faiss.IndexFlatIP(DIMENSIONS)
    index.add(train)
    weights, near = index.search(train, settings.dba_neighbours)
    negatives = (weights[..., None] ** settings.dba_power * train[near]).sum(axis=1)
    negatives /= np.linalg.norm(negatives, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(DIMENSIONS)
    index.add(negatives)
    sharpened = []
    for rows in (queries, references):
        _, near = index.search(rows, settings.negative_neighbours)
        less = rows - settings.beta * negatives[near].mean(axis=1)
        sharpened.append(less / np.linalg.norm(less, axis=1, keepdims=True))
    by_distance = faiss.IndexFlatL2(DIMENSIONS)
    by_distance.add(sharpened[1])
    distances, near = by_distance.search(sharpened[0], settings.top_k)
    return -distances, near


if __name__ == "__main__":
    main()
