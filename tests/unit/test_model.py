"""The descriptor model: pooling, pretrained weights, whitening."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from isc_jobs.spec.errors import DataError, UsageError
from isc_jobs.spec.profile import load_settings
from isc_jobs.spec.settings import Model
from isc_jobs.training.whitening import set_whitening
from isc_jobs.vision.model import DescriptorModel, build_model, normalise, resolve_backbone

DEMO = load_settings("demo").model


def changed(**values: object) -> Model:
    return Model.model_validate(DEMO.model_dump() | values)


@pytest.fixture(scope="module")
def pretrained() -> DescriptorModel:
    return build_model(DEMO, pretrained=True).eval()


def test_descriptors_are_rows_of_length_one_of_any_input_size(pretrained: DescriptorModel) -> None:
    for size in (32, 65, 96):
        with torch.inference_mode():
            rows = pretrained(torch.rand(2, 3, size, size) * 2 - 1)
            features = pretrained.features(torch.rand(2, 3, size, size) * 2 - 1)
        assert rows.shape == (2, 256)
        assert features.shape == (2, 320)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


def test_pixels_are_scaled_to_minus_one_to_one() -> None:
    pixels = np.array([0, 255, 51], np.uint8).reshape(1, 1, 1, 3)
    torch.testing.assert_close(normalise(pixels).flatten(), torch.tensor([-1.0, 1.0, -0.6]))


@pytest.mark.parametrize("p", [1.0, 3.0])
def test_pooling_is_the_generalised_mean(pretrained: DescriptorModel, p: float) -> None:
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    model = DescriptorModel(DEMO.backbone, 256, p)
    model.load_state_dict(pretrained.state_dict())
    with torch.inference_mode():
        maps = model.eval().backbone(x)[-1].clamp(min=1e-6)
        torch.testing.assert_close(model.pool(x), maps.double().pow(p).mean((2, 3)).pow(1 / p).float())


def test_the_packages_weights_classify_as_in_their_own_model(pretrained: DescriptorModel, tmp_path: Path) -> None:
    """The package's file by order and shape equals the same tensors by timm's names."""
    classifier = timm.create_model(DEMO.backbone, pretrained=False)
    state = classifier.state_dict()
    ours = pretrained.backbone.state_dict()
    state.update({name: ours[name] for name in ours})
    torch.save(state, tmp_path / "named.pth")
    named = build_model(changed(pretrained=str(tmp_path / "named.pth")), pretrained=True).backbone.state_dict()
    assert all(torch.equal(named[name], ours[name]) for name in ours)
    first = next(iter(build_model(changed(pretrained="none"), pretrained=True).backbone.parameters()))
    assert not torch.equal(first, next(pretrained.backbone.parameters()))


def test_wrong_backbones_and_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.backbone 'no_such_net'"):
        build_model(changed(backbone="no_such_net"), pretrained=False)
    with pytest.raises(UsageError, match="package no-such-package is not installed"):
        build_model(changed(pretrained="package:no-such-package"), pretrained=True)
    with pytest.raises(UsageError, match="no such file"):
        build_model(changed(pretrained=str(tmp_path / "absent.pth")), pretrained=True)
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="holds 1 tensors that are not tf_efficientnet_lite0's"):
        build_model(changed(pretrained=str(tmp_path / "other.pth")), pretrained=True)
    for number, content in enumerate((b"", b"hello", b"PK\x03\x04")):
        (tmp_path / f"{number}.pth").write_bytes(content)
        with pytest.raises(DataError, match="cut short or damaged"):
            build_model(changed(pretrained=str(tmp_path / f"{number}.pth")), pretrained=True)
    torch.save({"conv.weight": Path}, tmp_path / "class.pth")
    with pytest.raises(DataError, match="refused: they hold more than tensors"):
        build_model(changed(pretrained=str(tmp_path / "class.pth")), pretrained=True)


@pytest.mark.parametrize(
    ("name", "present"),
    [
        ("tf_efficientnetv2_m_in21ft1k", "tf_efficientnetv2_m.in21k_ft_in1k"),
        ("tf_efficientnetv2_m.in21k_ft_in1k", "tf_efficientnetv2_m.in21k_ft_in1k"),
        ("timm/tf_efficientnetv2_m.in21k_ft_in1k", "tf_efficientnetv2_m.in21k_ft_in1k"),
        ("hf_hub:timm/tf_efficientnetv2_m.in21k_ft_in1k", "tf_efficientnetv2_m.in21k_ft_in1k"),
        ("hf-hub:timm/tf_efficientnetv2_m_in21ft1k", "tf_efficientnetv2_m.in21k_ft_in1k"),
        ("tf_efficientnet_b4_ns", "tf_efficientnet_b4.ns_jft_in1k"),
        ("vit_base_patch16_224_in21k", "vit_base_patch16_224.augreg_in21k"),
        ("resnet50", "resnet50"),
    ],
)
def test_old_names_and_those_of_the_hub_are_timms_present_ones(name: str, present: str) -> None:
    assert resolve_backbone(name) == present
    with torch.device("meta"):
        assert DescriptorModel(name, 256, 1.0).fc.out_features == 256


@pytest.mark.parametrize("name", ["hf_hub:someone/resnet50", "local-dir:/tmp/x", "someone/resnet50", "/etc/passwd"])
def test_a_backbone_is_never_fetched_from_elsewhere_than_timm(name: str) -> None:
    with pytest.raises(UsageError, match="expected a name of timm's"):
        DescriptorModel(name, 256, 1.0)


@pytest.mark.parametrize("count", [1000, 20], ids=["many", "fewer than dimensions"])
def test_whitening_centres_orders_and_evens_out_variances(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(320, 320, generator=generator, dtype=torch.float64)
    features = torch.randn(count, 320, generator=generator, dtype=torch.float64) @ mixing + 3
    model = DescriptorModel(DEMO.backbone, 64, 1.0).eval()
    set_whitening(model, features)
    weight = model.fc.weight.double()
    torch.testing.assert_close(weight @ weight.T, torch.eye(64, dtype=torch.float64), atol=1e-5, rtol=0)
    projected = features @ weight.T
    variances = projected.var(0)
    assert (variances.diff() <= 1e-3 * variances[0]).all()
    with torch.inference_mode():
        whitened = model.bn(projected.float())
    torch.testing.assert_close(whitened.mean(0), torch.zeros(64), atol=1e-3, rtol=0)
    expected = variances / (variances + 0.3 * variances.mean())
    torch.testing.assert_close(whitened.double().var(0), expected, atol=1e-3, rtol=0)


def test_whitening_needs_as_many_channels_as_dimensions() -> None:
    model = DescriptorModel("resnet18", 256, 1.0)
    model.fc = torch.nn.Linear(100, 256, bias=False)
    with pytest.raises(UsageError, match="100 channels, fewer than dimensions 256"):
        set_whitening(model, torch.rand(300, 100, dtype=torch.float64))
