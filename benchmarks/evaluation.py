"""The global cap and uAP on 50,000 queries and a million references, beside tuples in Python.

Scores are synthetic: a range search has left a hundred results a query, of which ten a query on average count.
"""

import argparse
import statistics
import time
from operator import itemgetter

import numpy as np

from isc_jobs.retrieval.metrics import score_pairs
from isc_jobs.retrieval.search import RankedPairs, best_of
from isc_jobs.retrieval.submission import GroundTruth


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=50_000)
    parser.add_argument("--references", type=int, default=1_000_000)
    parser.add_argument("--results", type=int, default=100, help="a query")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    queries = [f"Q{place:05}" for place in range(arguments.queries)]
    references = [f"R{place:06}" for place in range(arguments.references)]
    found, truth = synthetic(arguments.queries, arguments.references, arguments.results)
    cap = 10 * arguments.queries
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        began = time.perf_counter()
        pairs = frozenset((queries[q], references[r]) for q, r in truth.items())
        truths = GroundTruth(frozenset(queries), pairs)
        mine = score_pairs(best_of(found, cap), queries, references, truths).uap
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        other = by_tuples(queries, references, found, truth, cap)
        theirs.append(time.perf_counter() - began)
        if abs(mine - other) > 1e-9:
            raise SystemExit(f"uAP {mine} and {other} differ")
    first, second = statistics.median(ours), statistics.median(theirs)
    print("| global cap and uAP, 50,000 queries, 5 million results | isc-jobs, s | tuples in Python, s | ratio |")
    print(f"|---|---|---|---|\n| uAP {mine:.4f} | {first:.2f} | {second:.2f} | {second / first:.1f} |")


def synthetic(queries: int, references: int, results: int) -> tuple[RankedPairs, dict[int, int]]:
    """Results of a range search, and the original of every fifth query."""
    rng = np.random.default_rng(0)
    asked = np.repeat(np.arange(queries), results)
    answers = rng.integers(references, size=asked.size)
    scores = rng.normal(-1.2, 0.15, asked.size)
    originals = np.arange(0, asked.size, 5 * results)
    scores[originals] = rng.normal(-0.8, 0.2, len(originals))
    return RankedPairs(asked, answers, scores), {int(asked[place]): int(answers[place]) for place in originals}


def by_tuples(queries: list[str], references: list[str], found: RankedPairs, truth: dict[int, int], cap: int) -> float:
    """As an evaluation script does it: named results, sorted and walked through."""
    results = [
        (score, queries[query], references[reference])
        for query, reference, score in zip(*(column.tolist() for column in found), strict=True)
    ]
    results.sort(key=itemgetter(0), reverse=True)
    named = {(queries[query], references[reference]) for query, reference in truth.items()}
    correct, precision_sum = 0, 0.0
    for place, (_, query, reference) in enumerate(results[:cap], start=1):
        if (query, reference) in named:
            correct += 1
            precision_sum += correct / place
    return precision_sum / len(named)


if __name__ == "__main__":
    main()
