"""The memory bank: embeddings and labels of the latest batches (cross-batch memory, arXiv:1912.06798)."""

import torch
from torch import Tensor

from isc_jobs.spec.errors import UsageError


class MemoryBank:
    """A ring of ``size`` embeddings (size, dimensions) with labels (size,); the same on every rank."""

    def __init__(self, size: int, dimensions: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """An empty bank."""
        self.embeddings = torch.zeros(size, dimensions, device=device, dtype=dtype)
        self.labels = torch.zeros(size, dtype=torch.long, device=device)
        self.pointer = 0
        self.filled = 0

    def enter(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Write a batch (b, dimensions) over the oldest rows, without gradient; the rows' positions (b,)."""
        size, batch = len(self.labels), len(labels)
        if batch > size:
            raise UsageError(
                f"memory_size {size} is below the {batch} rows of one step: raise it or lower global_batch"
            )
        rows = (torch.arange(batch, device=self.labels.device) + self.pointer) % size
        self.embeddings[rows] = embeddings.detach().to(self.embeddings.dtype)
        self.labels[rows] = labels
        self.pointer = (self.pointer + batch) % size
        self.filled = min(size, self.filled + batch)
        return rows

    def clear(self) -> None:
        """Forget everything."""
        self.pointer = self.filled = 0

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        place = torch.tensor([self.pointer, self.filled])
        return {"embeddings": self.embeddings.clone(), "labels": self.labels.clone(), "place": place}

    def load(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        self.embeddings.copy_(state["embeddings"])
        self.labels.copy_(state["labels"])
        self.pointer, self.filled = (int(value) for value in state["place"])
