"""A checkpoint to S3: how long training stands still, beside torch.save and upload_file. The S3 server: s3_server.py.

The weights change as soon as the training may go on; what was saved is then read back and compared.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from s3_server import BUCKET, s3_server
from torch import Tensor

from isc_jobs.spec.stage import StageSpec
from isc_jobs.stages.runner import Context
from isc_jobs.stages.saving import STATE, CheckpointWriter
from isc_jobs.store import open_store
from isc_jobs.store.checkpoints import load_latest

TENSORS = 400  # of the weights; the momentum has as many


def make_state(megabytes: int) -> dict[str, Any]:
    """Weights and momentum, half of it each, and a history as after 50,000 steps."""
    numbers = (megabytes << 20) // 4 // (2 * TENSORS)
    weights = {f"layer{n}": torch.randn(numbers) for n in range(TENSORS)}
    momentum = {n: {"momentum_buffer": torch.randn(numbers)} for n in range(TENSORS)}
    history = tuple([float(step)] * 8 for step in range(50_000))
    return {"model": weights, "optimiser": {"state": momentum}, "history": history}


def tensors_of(state: dict[str, Any]) -> list[Tensor]:
    """All of them, in order."""
    return [*state["model"].values(), *(entry["momentum_buffer"] for entry in state["optimiser"]["state"].values())]


def train_on(state: dict[str, Any]) -> None:
    """Change every number."""
    for tensor in tensors_of(state):
        tensor.neg_()


def check(ctx: Context, step: int, state: dict[str, Any]) -> None:
    """The checkpoint holds the numbers as they were when it was asked for, ``state`` those of one change later."""
    folder = ctx.work / "read"
    folder.mkdir(exist_ok=True)
    assert load_latest(ctx.store, ctx.spec.key, folder) == step
    train_on(saved := torch.load(folder / STATE))
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(saved), tensors_of(state), strict=True))


def context(work: Path) -> Context:
    """A training's, with a store on the server."""
    spec = StageSpec(
        program="train", stage="train-v83", key="0" * 64, run="benchmark", attempt=1, store=f"s3://{BUCKET}/store",
        settings={}, inputs={}, parameters={}, execution={},
    )  # fmt: skip
    return Context(spec, open_store(spec.store), work)


def measure(
    client: Any, ctx: Context, writer: CheckpointWriter, state: dict[str, Any], rounds: int
) -> tuple[list[float], list[float], float]:
    """Seconds of standing still, ours and theirs, and until ours is in the store at most."""
    ours, theirs, whole = [], [], 0.0
    path = ctx.work / "theirs.pt"
    for step in range(1, rounds + 1):
        started = time.monotonic()
        torch.save(state, path)
        client.upload_file(str(path), BUCKET, "theirs.pt")
        theirs.append(time.monotonic() - started)
        started = time.monotonic()
        writer.save(step, state)
        ours.append(time.monotonic() - started)
        train_on(state)
        writer.wait()
        whole = max(whole, time.monotonic() - started)
        check(ctx, step, state)
    return ours, theirs, whole


def main() -> None:
    """Print a Markdown row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder) / "server") as client:
        ctx = context(Path(folder) / "work")
        with CheckpointWriter(ctx) as writer:
            state = make_state(arguments.megabytes)
            ours, theirs, whole = measure(client, ctx, writer, state, arguments.rounds)
    first, later = ours[0], statistics.median(ours[1:])
    peer = statistics.median(theirs)
    print(
        f"| checkpoint of {arguments.megabytes} MB to S3 | stands still {later:.3f} s, the first time {first:.3f} s; "
        f"in the store after {whole:.1f} s | torch.save and upload_file {peer:.2f} s | "
        f"{peer / later:.0f} x less, the first {peer / first:.0f} x |"
    )


if __name__ == "__main__":
    main()
