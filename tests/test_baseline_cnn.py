import torch
import torch.nn.functional as F
from torch import nn

from stages.baseline.network import make_baseline_cnn


def test_the_network_is_the_one_described():
    model = make_baseline_cnn(seed=0)
    weights = dict(model.named_parameters())
    x = torch.randn(3, 3, 32, 32)
    hidden = x
    for k in (1, 2):
        convolved = F.conv2d(hidden, weights[f"conv{k}.weight"], weights[f"conv{k}.bias"], padding=1)
        hidden = F.max_pool2d(F.relu(convolved), 2)
    assert hidden.shape == (3, 64, 8, 8)
    hidden = F.relu(hidden.reshape(3, -1) @ weights["fc1.weight"].T + weights["fc1.bias"])
    expected = hidden @ weights["fc2.weight"].T + weights["fc2.bias"]
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)


def test_parameters_are_counted_by_hand():
    sizes = [32 * (3 * 9 + 1), 64 * (32 * 9 + 1), 128 * (64 * 8 * 8 + 1), 10 * (128 + 1)]
    assert sum(p.numel() for p in make_baseline_cnn(seed=0).parameters()) == sum(sizes) == 545_098


def test_it_starts_from_torchs_own_random_weights():
    torch.manual_seed(3)
    expected = [nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 3), nn.Linear(4096, 128), nn.Linear(128, 10)]
    model = make_baseline_cnn(seed=3)
    for layer, reference in zip((model.conv1, model.conv2, model.fc1, model.fc2), expected, strict=True):
        assert torch.equal(layer.weight, reference.weight) and torch.equal(layer.bias, reference.bias)
