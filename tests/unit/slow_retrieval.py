"""Postprocess and the challenge's metric once more: one pair after another, in float64, from their definitions."""

import math

import numpy as np
from numpy.typing import NDArray

from isc_jobs.retrieval.rows import Matrix

Wide = NDArray[np.float64]

KINDS = ("unit", "few values", "duplicates", "near duplicates", "all equal", "some zero")


def rows_of(kind: str, seed: int, count: int, dimensions: int) -> Matrix:
    """Rows (count, dimensions) that are easy or hard on search."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dimensions))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if kind == "few values":  # all sums are exact and most scores are tied
        rows = rng.integers(-1, 2, rows.shape).astype(float)
    elif kind == "duplicates":
        rows = rows[rng.integers(0, max(1, count // 3), count)]
    elif kind == "near duplicates":
        rows = rows[rng.integers(0, max(1, count // 3), count)] + 10 ** rng.uniform(-7, -4) * rng.normal(
            size=rows.shape
        )
    elif kind == "all equal":
        rows[:] = rows[:1]
    elif kind == "some zero":
        rows[rng.random(count) < 0.3] = 0
    elif kind == "any length":  # up to where float32 overflows when squared
        rows *= 10 ** rng.uniform(-12, 22, (count, 1))
    return rows.astype(np.float32)


def inner(a: Matrix | Wide, b: Matrix | Wide) -> float:
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def nearness(a: Matrix, b: Matrix) -> float:
    """Minus the squared L2 distance."""
    return -math.fsum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def first(scores: list[float], k: int) -> list[int]:
    """Places of the k best, the lowest first among equals."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])[:k]


def unit(row: Wide) -> Wide:
    length = math.sqrt(inner(row, row))
    return row / length if length else row


def smoothed(train: Matrix, k: int, power: float) -> Wide:
    result = []
    for row in train:
        similar = [inner(row, other) for other in train]
        total = np.zeros(train.shape[1])
        for place in first(similar, k):
            total += np.sign(similar[place]) * abs(similar[place]) ** power * train[place].astype(float)
        result.append(unit(total))
    return np.array(result).reshape(train.shape)


def subtracted(rows: Matrix, negatives: Matrix, k: int, beta: float) -> Wide:
    result = []
    for row in rows.astype(float):
        chosen = first([inner(row, negative) for negative in negatives], k)
        mean = sum(negatives[place].astype(float) for place in chosen) / max(1, len(chosen))
        result.append(unit(row - beta * mean))
    return np.array(result).reshape(rows.shape)


def postprocessed(
    train: Matrix, queries: Matrix, references: Matrix, k: int = 10, power: float = 3, beta: float = 0.35
) -> tuple[Wide, Wide]:  # fmt: skip
    """Queries and references as the recipe hands them in."""
    negatives = smoothed(train, k, power).astype(np.float32)
    return subtracted(queries, negatives, k, beta), subtracted(references, negatives, k, beta)


def all_pairs(queries: Matrix, references: Matrix) -> list[tuple[float, int, int]]:
    """Score and places of every pair, the best first, by place among equals."""
    every = [(nearness(q, r), i, j) for i, q in enumerate(queries) for j, r in enumerate(references)]
    return sorted(every, key=lambda pair: (-pair[0], pair[1], pair[2]))


Result = tuple[float, str, str]  # score, query, reference


def metric(results: list[Result], truth: list[tuple[str, str]]) -> tuple[float, float]:
    """uAP and recall at precision 90 of results, by the rows of a ground truth; an empty reference means none."""
    named, true = {query for query, _ in truth}, {pair for pair in truth if pair[1]}
    ranked = sorted((r for r in results if r[1] in named), key=lambda r: (r[0], r[1:] not in true), reverse=True)
    hits, uap, best = 0, 0.0, 0.0
    for place, (_, *pair) in enumerate(ranked, start=1):
        if tuple(pair) in true:
            hits += 1
            uap += hits / place / len(true)
        if hits / place >= 0.9:
            best = max(best, hits / len(true))
    return uap, best
