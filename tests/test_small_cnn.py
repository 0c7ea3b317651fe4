import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stages.models.dropout import Dropout
from stages.small_cnn.network import LAYERS, NORM_LAYERS, make_small_cnn

CONVOLUTION_WEIGHTS = [
    3 * 20 * 9,  # C1
    20 * 20 * 9,  # C2
    20 * 20 * 9,  # C3, plus the output of C1
    20 * 32,  # T4, then pooling
    32 * 32 * 9,  # C5
    32 * 32 * 9,  # C6
    32 * 32 * 9,  # C7, then pooling
    32 * 24,  # T8
    24 * 24 * 9,  # C9
    24 * 24 * 9,  # C10, then global average pooling
    24 * 10,  # C11
]


def randomize(model):
    """Norms away from their initial state."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm) and layer.affine:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)


@pytest.mark.parametrize("norm, parameters", [("batchnorm", 47_876), ("groupnorm", 47_876), ("layernorm", 47_404)])
def test_the_published_counts(norm, parameters):
    model = make_small_cnn(seed=0, norm=norm)
    assert [block[0].weight.numel() for block in model.blocks.values()] == CONVOLUTION_WEIGHTS
    assert sum(CONVOLUTION_WEIGHTS) == 47_404
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(layer.channels for layer in LAYERS if layer.normalized) == 236 == 472 / 2


def normalize_by_hand(norm, layer, x):
    """In eval mode, with torch's functions for whole tensors."""
    if norm == "batchnorm":
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)
    if norm == "groupnorm":
        return F.group_norm(x, {20: 5, 24: 8, 32: 8}[x.shape[1]], layer.weight, layer.bias)
    return F.layer_norm(x, x.shape[1:])


@pytest.mark.parametrize("norm", NORM_LAYERS)
def test_the_network_written_out(norm):
    model = make_small_cnn(seed=0, norm=norm).eval()
    randomize(model)

    def convolve(name, x):
        weight = model.blocks[name][0].weight
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)

    def block(name, x):
        return F.relu(normalize_by_hand(norm, model.blocks[name][1], convolve(name, x)))

    images = torch.randn(4, 3, 32, 32)
    first = block("C1", images)
    x = first + block("C3", block("C2", first))
    x = F.max_pool2d(block("T4", x), 2)
    x = F.max_pool2d(block("C7", block("C6", block("C5", x))), 2)
    assert x.shape == (4, 32, 8, 8)
    x = block("C10", block("C9", convolve("T8", x))).mean((2, 3))
    expected = x @ model.blocks["C11"][0].weight.flatten(1).T
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_where_the_table_says_and_only_in_training():
    model = make_small_cnn(seed=0)
    rates = {name: block[-1].rate for name, block in model.blocks.items() if isinstance(block[-1], Dropout)}
    assert rates == {"C3": 0.05, "T4": 0.1, "C6": 0.05, "C7": 0.05, "C9": 0.05}
    assert all(isinstance(model.blocks[name][-2], nn.ReLU) for name in rates)


def test_all_norms_start_from_the_same_convolutions():
    models = [make_small_cnn(seed=4, norm=norm) for norm in NORM_LAYERS]
    for model in models[1:]:
        for name in model.blocks:
            assert torch.equal(model.blocks[name][0].weight, models[0].blocks[name][0].weight)
    assert not torch.equal(make_small_cnn(seed=5).blocks["C1"][0].weight, models[0].blocks["C1"][0].weight)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm is 'frn'; it must be one of batchnorm, groupnorm, layernorm"):
        make_small_cnn(seed=0, norm="frn")
