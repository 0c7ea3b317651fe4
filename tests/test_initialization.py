import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from stages.mobilenetv2.network import MobileNetV2, MobileNetV2Settings
from stages.models.initialization import initialize_like_torch, initialize_like_torchvision


def make_layers():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Sequential(nn.Conv2d(8, 8, 5, groups=8, bias=False), nn.Linear(7, 4)),
        nn.Linear(4, 2, bias=False),
    )


def assert_same_weights(model, expected):
    for (name, value), reference in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(value, reference), name


def test_the_default_scheme_is_torchs_own_bit_for_bit():
    """With its global generator at the same seed, torch's constructors draw the same numbers."""
    torch.manual_seed(5)
    expected = make_layers()
    model = make_layers()
    initialize_like_torch(model, seed=5)
    assert_same_weights(model, expected)


def test_mobilenetv2_starts_as_torchvisions_bit_for_bit(monkeypatch):
    """torchvision's constructor draws twice; without the layers' own draws its second one starts at the seed."""
    for layer in (nn.Conv2d, nn.Linear):
        monkeypatch.setattr(layer, "reset_parameters", lambda self: None)
    torch.manual_seed(5)
    expected = mobilenet_v2(weights=None)
    monkeypatch.undo()
    model = MobileNetV2(MobileNetV2Settings(classes=1000, strides="reduce_32"))
    initialize_like_torchvision(model, seed=5)
    assert_same_weights(model, expected)


@pytest.mark.parametrize("initialize", [initialize_like_torch, initialize_like_torchvision])
def test_only_the_seed_decides(initialize):
    models = []
    for seed in (1, 1, 2):
        torch.rand(3)
        models.append(make_layers())
        before = torch.get_rng_state()
        initialize(models[-1], seed)
        assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(models[0], models[1])
    assert not torch.equal(models[0][0].weight, models[2][0].weight)
