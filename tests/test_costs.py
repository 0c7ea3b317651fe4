import itertools

import pytest
import torch
from torch import nn
from torchvision.models import MobileNet_V2_Weights

from stages.baseline.network import make_baseline_cnn
from stages.mobilenetv2.network import MobileNetV2, MobileNetV2Settings
from stages.models import costs
from stages.models.costs import count_multiply_adds, count_parameters, evaluating, measure_latency


def test_multiply_adds_of_a_convolution_and_a_dense_layer():
    """Each output of a convolution takes (C / groups) k k of them; stride 2 on 9x9 with padding 1 gives 5x5."""
    model = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 7))
    expected = 8 * 5 * 5 * (6 // 2) * 9 + 200 * 7
    assert count_multiply_adds(model, torch.zeros(1, 6, 9, 9)) == expected
    assert count_multiply_adds(model, torch.zeros(4, 6, 9, 9)) == expected  # per image


def test_multiply_adds_of_the_baseline_by_hand():
    by_hand = 32 * 32 * 32 * 3 * 9 + 16 * 16 * 64 * 32 * 9 + 4096 * 128 + 128 * 10
    assert count_multiply_adds(make_baseline_cnn(seed=0), torch.zeros(2, 3, 32, 32)) == by_hand


def test_mobilenetv2_costs_what_is_published():
    """The paper's table 4 has 3.4 M parameters and 300 M multiply-adds, torchvision's records more digits."""
    model = MobileNetV2(MobileNetV2Settings(classes=1000, strides="reduce_32"))
    published = MobileNet_V2_Weights.IMAGENET1K_V1.meta
    assert count_parameters(model) == published["num_params"] == pytest.approx(3.4e6, rel=0.04)
    found = count_multiply_adds(model, torch.zeros(1, 3, 224, 224))
    assert found == pytest.approx(300e6, rel=0.01)
    assert round(found / 1e9, 3) == published["_ops"]


def test_frozen_parameters_and_statistics_are_not_counted():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert count_parameters(model) == 3 * 4 + 4 + 2 * 4
    model[0].requires_grad_(False)
    assert count_parameters(model) == 2 * 4


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_and_statistics_are_left_as_they_were(training):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train(training)
    count_multiply_adds(model, torch.randn(5, 3))
    measure_latency(model, torch.randn(5, 3), repeats=1)
    assert model.training == training and model[1].num_batches_tracked == 0
    with pytest.raises(RuntimeError, match="broken"), evaluating(model):
        assert not model.training and not torch.is_grad_enabled()
        raise RuntimeError("broken")
    assert model.training == training and torch.is_grad_enabled()


def test_latency_is_the_median_without_the_first_passes(monkeypatch):
    """On a clock by which the passes take 1000, 100 (warming up), 1, 2, 30 seconds."""
    ticks = itertools.accumulate([0, 1000, 0, 100, 0, 1, 0, 2, 0, 30])
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(ticks))
    assert measure_latency(nn.Identity(), torch.zeros(1), repeats=3, warmup=2) == 2
    assert next(ticks, None) is None
