"""What this machine does at most: the physical limits that docs/performance.md holds each path against."""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

SIDE = 2048  # of the matrices, which no cache holds
COPIED = 256 << 20  # bytes


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk that is measured; default: that of temporary files")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    block = np.random.default_rng(0).integers(0, 256, COPIED, dtype=np.uint8)
    target = np.empty_like(block)
    rows = {
        f"fp32 product, {torch.get_num_threads()} cores, GFLOP/s": 2e-9 * SIDE**3 / best(product(torch.float), rounds),
        "bf16 product, GFLOP/s": 2e-9 * SIDE**3 / best(product(torch.bfloat16), rounds),
        "memory copied, GB/s, one thread": 1e-9 * COPIED / best(lambda: np.copyto(target, block), rounds),
        "SHA-256, GB/s, one thread": 1e-9 * COPIED / best(lambda: hashlib.sha256(block.data), rounds),
        "written to disk and flushed, GB/s": 1e-9 * COPIED / best(written(block, arguments.folder), rounds),
    }  # fmt: skip
    print("| the machine | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.3g} |")


def best(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the quickest round after a first one."""
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def product(kind: torch.dtype) -> Callable[[], object]:
    """Of two square matrices."""
    first, second = (torch.randn(SIDE, SIDE).to(kind) for _ in range(2))
    out = torch.empty(SIDE, SIDE, dtype=kind)
    return lambda: torch.mm(first, second, out=out)


def written(block: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], folder: Path | None) -> Callable[[], object]:
    """All bytes, until the disk has them."""

    def write() -> None:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(block.data)
            file.flush()
            os.fsync(file.fileno())

    return write


if __name__ == "__main__":
    main()
