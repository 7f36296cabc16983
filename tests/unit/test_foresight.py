"""What can be known before a run begins is said before it begins."""

from pathlib import Path

import pytest
import torch

from isc_jobs.commands import foresight
from isc_jobs.commands.foresight import look_ahead
from isc_jobs.controller.request import Given, Request
from isc_jobs.spec.errors import DataError
from isc_jobs.spec.profile import load_settings
from isc_jobs.store import open_store
from isc_jobs.store.listing import source_digest
from isc_jobs.store.source import open_source
from isc_jobs.vision.model import DescriptorModel


def warned(tmp_path: Path, profile: str, weights: Path | None = None, **asked: str) -> str | None:
    source = tmp_path / "source"
    for name in ("train_images/T1.jpg", "reference_images/R1.jpg", "query_images_phase2/Q1.jpg"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"0" * 1000)
    given = Given(weights=weights, listing=tmp_path / "listing.tsv.gz")
    request = Request(
        run="a", settings=load_settings(profile).model_dump(mode="json"), source=str(source), anonymous=False,
        source_digest=source_digest(open_source(str(source)), given.listing), weights_sha256=None, first=None,
        last=asked.get("last"), launcher=asked.get("launcher", "local"),
    )  # fmt: skip
    return look_ahead(open_store(str(tmp_path / "store")), request, given)


def test_days_of_work_for_want_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foresight, "_DRIVERS", (tmp_path / "driver",))
    said = warned(tmp_path, "isc21")
    assert said is not None
    assert "no GPU is here: on " in said
    assert " days; the profile demo is made for such a machine" in said
    assert warned(tmp_path, "demo") is None
    assert warned(tmp_path, "isc21", last="download") is None
    assert warned(tmp_path, "isc21", launcher="kubernetes") is None
    (tmp_path / "driver").touch()
    assert warned(tmp_path, "isc21") is None
    assert not (tmp_path / "store").exists()


def test_weights_of_another_model(tmp_path: Path) -> None:
    model = load_settings("demo").model
    path = tmp_path / "weights.pth.tar"
    for arch, dimensions, right in ((model.backbone, 256, True), (model.backbone, 64, False), ("resnet18", 256, False)):
        tensors = DescriptorModel(arch, dimensions, 1.0).state_dict()
        torch.save({"epoch": 1, "arch": arch, "state_dict": tensors}, path)
        if right:
            assert warned(tmp_path, "demo", path) is None
        else:
            expected = (
                f"weights {path} are of {arch}, the settings' is {model.backbone} with 256 dimensions: give others"
            )
            with pytest.raises(DataError, match=expected) as raised:
                warned(tmp_path, "demo", path)
            assert ("of another shape: fc.weight" in str(raised.value)) == (arch == model.backbone)
