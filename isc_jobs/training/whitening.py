"""The head's start on small data: PCA whitening of the training images' pooled features.

A random projection loses much of what the backbone knows, and few steps do not win it back. Whitening of
pooled features is the standard descriptor without training (Jégou and Chum, ECCV 2012); training goes on from it.
"""

import numpy as np
import torch
from torch import Tensor

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.vision.model import DescriptorModel, normalise
from isc_jobs.vision.resize import load_resized
from isc_jobs.vision.shards import ShardSet

_MOST_IMAGES = 4096
_BATCH = 64
_SHRINKAGE = 0.3  # share of the mean variance added to each: directions that few images show are not blown up


def whiten_head(model: DescriptorModel, images: ShardSet, size: int, device: torch.device) -> None:
    """Set projection and batch norm to whiten the features of training images, unedited, at (size, size).

    Raises DataError for fewer than two images.
    """
    if len(images) < 2:
        raise DataError(f"model.head whitened needs at least 2 training images, found {len(images)}")
    chosen = np.linspace(0, len(images) - 1, min(len(images), _MOST_IMAGES)).round().astype(int)
    model.to(device).eval()
    features = []
    with torch.inference_mode():
        for start in range(0, len(chosen), _BATCH):
            rows = [load_resized(images.read(int(place)), size) for place in chosen[start : start + _BATCH]]
            features.append(model.pool(normalise(np.stack(rows)).to(device)).double().cpu())
    set_whitening(model, torch.cat(features))


def set_whitening(model: DescriptorModel, features: Tensor) -> None:
    """Project features (n, channels) on their leading principal axes; variances go to the batch norm's statistics.

    Raises UsageError if there are more dimensions than channels.
    """
    dimensions, channels = model.fc.weight.shape
    if dimensions > channels:
        raise UsageError(
            f"model.head whitened: the backbone has {channels} channels, fewer than dimensions {dimensions}"
        )
    mean = features.mean(0)
    variances, axes = torch.linalg.eigh(torch.cov(features.T))  # ascending
    variances, axes = variances.flip(0)[:dimensions].clamp(min=0), axes.flip(1)[:, :dimensions].T
    with torch.no_grad():
        model.fc.weight.copy_(axes)
        assert model.bn.running_mean is not None
        assert model.bn.running_var is not None
        model.bn.running_mean.copy_(axes @ mean)
        model.bn.running_var.copy_(variances + _SHRINKAGE * variances.mean())
