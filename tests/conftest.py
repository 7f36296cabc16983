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
