"""What all runs start from."""

import os
import shutil
from pathlib import Path

import pytest
from commands import PHOTOS, isc_jobs
from deployment import deployment

__all__ = ["data", "deployment"]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark made of the example photos."""
    out = tmp_path_factory.mktemp("data") / "set"
    made = isc_jobs("dataset", "make", PHOTOS, "--out", out)
    assert made.returncode == 0, made.stderr
    return out


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small photos in shards, as download leaves them."""
    from photo_samples import write_photos

    return write_photos(tmp_path_factory.mktemp("photos") / "data")


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh cache for torch.compile; without a C++ compiler on the machine the test is left out."""
    import torch

    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("torch.compile needs a C++ compiler, g++ or what CXX names: there is none here")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.utils.counters.clear()  # tests look at what they had compiled
