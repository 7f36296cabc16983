"""What a unit of work costs one core, and what a backbone holds: the measured table of ``isc-jobs estimate``.

CPU time, not wall time, so that a busy machine matters little. Each cost is measured several times in turn; the table
has the least and the greatest. Writes OUT, by default the table that the package reads.
"""

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from botocore.exceptions import EndpointConnectionError
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from isc_jobs.retrieval.search import best_pairs, inner_product_neighbours
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import TRAINING_NAMES, Training
from isc_jobs.store import Store, open_store
from isc_jobs.store.artifacts import file_sha256
from isc_jobs.store.s3 import s3_client
from isc_jobs.training.dataset import Negatives, Pairs, Samples
from isc_jobs.training.host_copy import HostCopy
from isc_jobs.training.schedule import build_optimiser
from isc_jobs.vision.decode import decode_rgb
from isc_jobs.vision.model import DescriptorModel, normalise
from isc_jobs.vision.resize import load_resized
from isc_jobs.vision.shards import Picture, ShardSet, write_shard

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "isc_jobs/estimate/measured.yaml"
SIDE = 1024  # of the pictures, as most of the challenge's are
# The recipe's, the demo's, and the one whose speed on GPUs is published.
BACKBONES = ("tf_efficientnetv2_m.in21k_ft_in1k", "tf_efficientnet_lite0", "tf_efficientnetv2_s.in1k")
SIZES = (128, 160, 224, 256, 300, 384, 448, 512, 640, 768)
PORT = 5987  # of an S3 server on this machine
Costs = dict[str, Any]


def main() -> None:
    """Measure, write the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        data = _Data(Path(folder), arguments.pictures)
        table = {
            "machine": _machine(),
            "pictures": {"longer_side": SIDE, "bytes": data.mean_bytes, "repeats": arguments.repeats},
            "cpu_ms": picture_costs(data, arguments.repeats) | {"requested": spread(request_costs(arguments.repeats))},
            "per_core": rates(Path(folder), arguments.repeats),
            "backbones": {name: backbone(name) for name in BACKBONES},
        }
    head = "# Written by benchmarks/unit_costs.py: measured, not chosen. CPU time of one core, least and greatest.\n"
    text = head + yaml.safe_dump(table, sort_keys=False, width=120, default_flow_style=None)
    arguments.out.write_text(text)
    print(text)


class _Data:
    """Example photos enlarged to the usual size of the challenge's, in a shard."""

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        photos = sorted((ROOT / "examples/photos").glob("*.jpg"))[:count]
        pictures = [_enlarged(f"T{number:06d}", path) for number, path in enumerate(photos)]
        self.encoded = [picture.data for picture in pictures]
        self.mean_bytes = round(statistics.fmean(map(len, self.encoded)))
        write_shard(root / "train.tar", pictures)
        (root / "manifest.json").write_text(json.dumps({"sets": {"train": {"shards": ["train.tar"]}}}))

    def path(self, name: str) -> Path:
        return self.root / name

    def samples(self, training: Training) -> Samples:
        empty = ShardSet(self, "reference")
        alone = training.model_copy(update={"extra_negatives": 0})
        return Samples(alone, ShardSet(self, "train"), Pairs(empty, empty, []), Negatives(empty, []))


def _enlarged(id_: str, path: Path) -> Picture:
    with Image.open(path) as opened:
        photo = ImageOps.contain(opened.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    photo.save(data, "JPEG", quality=90)
    return Picture(id_, "jpg", data.getvalue(), *photo.size)


def _machine() -> Costs:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1), "date": datetime.now(UTC).date().isoformat(),
        "torch": str(torch.__version__),
    }  # fmt: skip


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of one call, all threads."""
    started = time.process_time()
    work()
    return time.process_time() - started


def spread(values: list[float]) -> list[float]:
    """Least and greatest, three digits."""
    return [float(f"{value:.3g}") for value in (min(values), max(values))]


def picture_costs(data: _Data, repeats: int) -> Costs:
    """Milliseconds a pair of views, a resized picture (decoded, as extraction has it) and a verified one."""
    trainings = [getattr(load_settings("isc21").trainings, name) for name in TRAINING_NAMES]
    viewed = [training for training in trainings if training.views is not None]
    count = len(data.encoded)
    costs: dict[str, dict[int, list[float]]] = {"pair": {}, "resized": {}}
    verified: list[float] = []
    for _ in range(repeats):  # in turn, so that a change of the machine's pace meets all
        for training in viewed:
            rows, size = data.samples(training), training.input_size
            pairs = cpu_seconds(lambda rows=rows: [rows[0, index] for index in range(count)])  # type: ignore[misc]
            costs["pair"].setdefault(size, []).append(1000 * pairs / count)
            resized = cpu_seconds(lambda size=size: [load_resized(one, size) for one in data.encoded])  # type: ignore[misc]
            costs["resized"].setdefault(size, []).append(1000 * resized / count)
        verified.append(1000 * cpu_seconds(lambda: [decode_rgb(one) for one in data.encoded]) / count)
    table: Costs = {kind: {size: spread(each) for size, each in found.items()} for kind, found in costs.items()}
    return table | {"verified": spread(verified)}


def request_costs(repeats: int, requests: int = 200) -> list[float]:
    """Milliseconds that this process spends on fetching a small object from an S3 server, which is another process."""
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(PORT)], stderr=subprocess.DEVNULL)
    os.environ |= {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{PORT}", "AWS_ACCESS_KEY_ID": "a",
                   "AWS_SECRET_ACCESS_KEY": "a"}  # fmt: skip
    try:
        store = _opened()
        store.put("one", bytes(100_000))
        times = [cpu_seconds(lambda: [store.get("one") for _ in range(requests)]) for _ in range(repeats)]
    finally:
        server.terminate()
    return [1000 * seconds / requests for seconds in times]


def _opened() -> Store:
    """The server's bucket, once it answers."""
    client = s3_client()
    for _ in range(120):
        try:
            client.create_bucket(Bucket="bucket")
        except EndpointConnectionError:
            time.sleep(0.5)
            continue
        return open_store("s3://bucket/costs")
    raise SystemExit(f"the S3 server does not answer on port {PORT}: is moto[server] installed?")


def rates(folder: Path, repeats: int) -> Costs:
    """Of one core: copying and hashing a checkpoint, exact search, and a small network's arithmetic."""
    rng = np.random.default_rng(0)
    rows, queries = (rng.standard_normal((n, 256), np.float32) for n in (30_000, 2_048))
    flops = 2 * len(rows) * len(queries) * 256
    file = folder / "weights.pt"
    copy = HostCopy()
    tensors = {str(n): torch.randn(1 << 20) for n in range(48)}  # 0.2 GB, as the descriptor model's weights
    size = sum(tensor.nbytes for tensor in tensors.values())
    measured: dict[str, list[float]] = {}
    torch.set_num_threads(1)
    torch.save(copy.take(tensors), file)
    for _ in range(repeats):
        for name, amount, work in (
            ("copied_gb_per_s", size / 1e9, lambda: copy.take(tensors)),
            ("sha256_gb_per_s", size / 1e9, lambda: file_sha256(file)),
            ("search_gflop_per_s", flops / 1e9, lambda: inner_product_neighbours(queries, rows, 10)),
            ("pairs_gflop_per_s", flops / 1e9, lambda: best_pairs(queries, rows, 10 * len(queries))),
        ):  # fmt: skip
            measured.setdefault(name, []).append(amount / cpu_seconds(work))
        for name, rate in _network_rates().items():
            measured.setdefault(name, []).append(rate)
    return {name: spread(values) for name, values in measured.items()}


def _network_rates() -> dict[str, float]:
    """GFLOP a second of training (thrice the forward pass's) and of describing, float32, by the demo's backbone."""
    model = DescriptorModel("tf_efficientnet_lite0", 256, 1.0).to(memory_format=torch.channels_last)
    x = normalise(np.random.default_rng(0).integers(0, 256, (32, 160, 160, 3), np.uint8))
    flops = forward_flops(model, x) / 1e9
    trained = cpu_seconds(lambda: torch.autograd.backward(model(x).square().sum()))
    model.eval()
    with torch.inference_mode():
        model(x)
        described = cpu_seconds(lambda: model(x))
    return {"train_gflop_per_s": 3 * flops / trained, "describe_gflop_per_s": flops / described}


def forward_flops(model: DescriptorModel, x: Tensor) -> int:
    """Floating-point operations of a forward pass: two a multiplication and addition, as torch counts them."""
    model.eval()  # batch norm refuses one picture in training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    model.train()
    return int(counter.get_total_flops())


def backbone(name: str) -> Costs:
    """Of the descriptor model: forward GFLOP a picture by size, parameters, bytes, operations of a step, activations.

    A backward pass is taken as two forward ones; torch's counter miscounts it for depthwise convolutions.
    """
    with torch.device("meta"):
        model = DescriptorModel(name, 256, 1.0)
        counted = {size: forward_flops(model, torch.empty(1, 3, size, size)) / 1e9 for size in SIZES}
        operations = _operations(model)
    return {
        "forward_gflop": {size: round(value, 4) for size, value in counted.items()},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "state_bytes": sum(tensor.nbytes for tensor in model.state_dict().values()),
        "batch_norms": sum("BatchNorm" in type(module).__name__ for module in model.modules()),
        "operations": operations,
        "activation_bytes_per_pixel": round(_activations(name)),
    }


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def _operations(model: DescriptorModel) -> int:
    """Operations that the host starts in one step: forward, backward, optimiser."""
    optimiser = build_optimiser(model, load_settings("isc21").trainings.v83)
    counting = _Counting()
    with counting:
        torch.autograd.backward(model(torch.empty(2, 3, 256, 256)).sum())
        optimiser.step()
    return counting.count


def _activations(name: str, size: int = 128, batch: int = 2) -> float:
    """Bytes that the forward pass keeps for the backward one, a pixel of input, in bfloat16's mixed precision."""
    model = DescriptorModel(name, 256, 1.0).to(memory_format=torch.channels_last)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.state_dict().values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that no address is given out twice
        return tensor

    x = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        result = model(x)
    weights = sum(parameter.numel() * 2 for parameter in model.parameters() if parameter.ndim > 1)  # their copies
    total: int = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
    del result
    return (total - weights) / (batch * size * size)


if __name__ == "__main__":
    main()
