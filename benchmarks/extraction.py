"""Descriptors of JPEGs on a CPU, beside torchvision's Resize, a DataLoader and timm's model as they come."""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from views_speed import as_jpeg

from isc_jobs.spec.profile import load_settings
from isc_jobs.training.loaders import begin_worker
from isc_jobs.training.loop import autocast
from isc_jobs.vision.folding import fold_batch_norms
from isc_jobs.vision.model import DescriptorModel, build_model, normalise
from isc_jobs.vision.resize import load_resized

CPU = torch.device("cpu")
Decode = Callable[[bytes, int], Tensor]


def main() -> None:
    """Print a row for each model and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=Path("examples/photos"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", type=int, default=256, help="pictures for lite0")
    parser.add_argument("--large", type=int, default=16, help="pictures for EfficientNetV2-M")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    photos = [as_jpeg(path) for path in sorted(arguments.photos.glob("*.jpg"))]
    print("| extraction on a CPU | torchvision + timm, img/s | ours, fp32 | ours, bf16 | model alone, fp32 | cosine |")
    print("|---|---|---|---|---|---|")
    for profile, size, count, batch in (("demo", 224, arguments.small, 32), ("isc21", 512, arguments.large, 8)):
        settings = load_settings(profile).model
        torch.manual_seed(0)
        model = build_model(settings, pretrained=profile == "demo").eval()
        pictures = [photos[place % len(photos)] for place in range(count)]
        compare(f"{settings.backbone} at {size}", model, pictures, size, batch, arguments.rounds)
    print("Without a hub EfficientNetV2-M has random weights, whose descriptors amplify every rounding: no cosine.")


def compare(name: str, model: DescriptorModel, pictures: list[bytes], size: int, batch: int, rounds: int) -> None:
    """Medians of interleaved rounds."""
    theirs: list[float] = []
    mine: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    alone: list[float] = []
    folded = copy.deepcopy(model)
    fold_batch_norms(folded.backbone)
    folded.to(memory_format=torch.channels_last)
    for _ in range(rounds):
        began = time.perf_counter()
        expected = described(model, loader(pictures, size, batch, peer_pixels), lambda x: x, torch.float32)
        theirs.append(time.perf_counter() - began)
        for precision, seconds in mine.items():
            began = time.perf_counter()
            found = described(folded, loader(pictures, size, batch, pixels), normalise, precision)
            seconds.append(time.perf_counter() - began)
            if precision == torch.float32:
                cosine = functional.cosine_similarity(expected, found).min().item()
        ready = list(loader(pictures, size, batch, pixels))
        began = time.perf_counter()
        described(folded, ready, normalise, torch.float32)
        alone.append(time.perf_counter() - began)
    rates = [len(pictures) / statistics.median(times) for times in (theirs, *mine.values(), alone)]
    ratios = [rates[0], *(rate / rates[0] for rate in rates[1:])]
    shown = f"{cosine:.5f}" if "lite0" in name else "-"
    print(f"| {name} | {ratios[0]:.1f} | {ratios[1]:.2f} x | {ratios[2]:.2f} x | {ratios[3]:.2f} x | {shown} |",
          flush=True)  # fmt: skip


@torch.inference_mode()
def described(
    model: nn.Module, batches: Iterable[Tensor], prepare: Callable[[Tensor], Tensor], precision: torch.dtype
) -> Tensor:
    """Descriptors (n, d)."""
    rows = []
    for pixels in batches:
        with autocast(precision, CPU):
            rows.append(model(prepare(pixels)))
    return torch.cat(rows)


def pixels(data: bytes, size: int) -> Tensor:
    """As extraction reads a picture."""
    return torch.from_numpy(load_resized(data, size))


def peer_pixels(data: bytes, size: int) -> Tensor:
    """As torchvision does it."""
    chain = transforms.Compose(
        [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    )
    tensor: Tensor = chain(Image.open(BytesIO(data)).convert("RGB"))
    return tensor


class Pictures(Dataset[Tensor]):
    """Encoded pictures, decoded when asked for."""

    def __init__(self, pictures: list[bytes], size: int, decode: Decode) -> None:
        """``decode`` makes a tensor of one."""
        self._pictures, self._size, self._decode = pictures, size, decode

    def __len__(self) -> int:
        """How many."""
        return len(self._pictures)

    def __getitem__(self, place: int) -> Tensor:
        """One of them."""
        return self._decode(self._pictures[place], self._size)


def loader(pictures: list[bytes], size: int, batch: int, decode: Decode) -> DataLoader[Tensor]:
    """One process that decodes, as on two cores."""
    return DataLoader(Pictures(pictures, size, decode), batch_size=batch, num_workers=1, worker_init_fn=begin_worker)


if __name__ == "__main__":
    main()
