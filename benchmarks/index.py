"""A million descriptors in an index on disk: time, size, memory and recall of both kinds, beside faiss in memory."""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from isc_jobs.matching.index import Entry, Index, Kind, build

DIMENSIONS, GROUP = 256, 50  # descriptors of a subject lie near one another, as those of photos do
QUERIES = 1000
Rows = NDArray[np.float32]


def subjects(count: int) -> Iterator[Rows]:
    """Unit rows about ``count / GROUP`` centres, some thousand at a time."""
    for number in range(count // (GROUP * 1000)):
        rng = np.random.default_rng(number)
        centres = rng.normal(size=(1000, 1, DIMENSIONS)).astype(np.float32)
        rows = (centres + 0.7 * rng.normal(size=(1000, GROUP, DIMENSIONS)).astype(np.float32)).reshape(-1, DIMENSIONS)
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def copies(count: int) -> tuple[Rows, NDArray[np.int64]]:
    """Rows a little off some of them, and which."""
    rng = np.random.default_rng(1 << 20)
    places = np.sort(rng.choice(min(count, GROUP * 1000), QUERIES, replace=False))
    rows = next(subjects(count))[places] + 0.02 * rng.normal(size=(QUERIES, DIMENSIONS)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), places


def measure(kind: Kind, count: int, folder: Path) -> str:
    """A row of the table."""
    entries = [Entry(f"/photos/{number:07d}.jpg", f"{number:032x}") for number in range(count)]
    began = time.perf_counter()
    head = build(folder, kind, entries, subjects(count), {}, None)
    built = time.perf_counter() - began
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    began = time.perf_counter()
    index = Index(folder)
    opened = time.perf_counter() - began
    queries, places = copies(count)
    index.search(queries[:10], 10)
    began = time.perf_counter()
    _, found = index.search(queries, 10)
    searched = (time.perf_counter() - began) / QUERIES * 1e3
    right = float(np.mean(found[:, 0] == places))
    recall = "exact" if head.recall is None else f"{head.recall:.1%}, {head.probes} lists"
    return f"| {kind} | {built:.0f} | {size:,.0f} | {opened:.1f} | {searched:.1f} | {right:.1%} | {recall} |"


def in_memory(count: int) -> str:
    """The peer: faiss's flat index in memory."""
    flat = faiss.IndexFlatL2(DIMENSIONS)
    for rows in subjects(count):
        flat.add(rows)
    queries, places = copies(count)
    began = time.perf_counter()
    _, found = flat.search(queries, 10)
    searched = (time.perf_counter() - began) / QUERIES * 1e3
    return f"| faiss IndexFlatL2 in memory | | | | {searched:.1f} | {np.mean(found[:, 0] == places):.1%} | exact |"


def main() -> None:
    """Print a row an index."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    count = parser.parse_args().count
    print(f"{count:,} descriptors of {DIMENSIONS} dimensions, {QUERIES} queries at once\n")
    print("| index | built, s | on disk, MB | opened, s | ms a query | copies found first | of the ten nearest found |")
    print("|---|---|---|---|---|---|---|")
    print(in_memory(count), flush=True)
    for kind in ("exact", "ivfpq"):
        with tempfile.TemporaryDirectory() as folder:
            print(measure(kind, count, Path(folder)), flush=True)
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
