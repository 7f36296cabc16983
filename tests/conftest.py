"""What all runs start from."""

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
    """torch's compiler works on this machine, or the test is left out with the reason."""
    import torch

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2))
    except Exception as error:  # noqa: BLE001 - whatever it lacks
        pytest.skip(f"torch.compile does not run here: {' '.join(str(error).split())[:200]}")
    torch._dynamo.utils.counters.clear()  # tests look at what they had compiled
