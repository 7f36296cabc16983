"""What all runs start from."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PHOTOS, isc_jobs, run_all
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
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a whole run; to be left as it is."""
    store = tmp_path_factory.mktemp("finished") / "store"
    ran = isc_jobs(*run_all(data, store))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return store


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small photos in shards, as download leaves them."""
    from photo_samples import write_photos

    return write_photos(tmp_path_factory.mktemp("photos") / "data")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB of its own."""
    place = tmp_path / "mounted"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting a small file system needs more rights")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def fresh_credentials() -> Iterator[None]:
    """S3 clients made in the test find credentials anew: their session keeps those that it found first."""
    from isc_jobs.store import s3

    s3._session.cache_clear()
    yield
    s3._session.cache_clear()


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh cache for torch.compile; without a C++ compiler on the machine the test is left out."""
    import torch

    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("torch.compile needs a C++ compiler, g++ or what CXX names: there is none here")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.utils.counters.clear()  # tests look at what they had compiled
