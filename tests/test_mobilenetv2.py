import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2 as TorchvisionMobileNetV2
from torchvision.models.mobilenetv2 import _make_divisible

from stages.core.params import load_params
from stages.mobilenetv2.network import (
    ACTIVATIONS,
    STRIDES,
    InvertedResidual,
    MobileNetV2,
    MobileNetV2Settings,
    PaddedConv2d,
    make_mobilenetv2,
    round_channels,
)
from tests.conftest import ROOT

VARIANTS = load_params(ROOT / "params.yaml").mobilenetv2.variants
PAPER = {"classes": 1000, "strides": "reduce_32"}
TABLE_2 = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def randomize(model):
    """BN away from its initial state, so that a layer left out or in the wrong place is noticed."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    return model.eval()


@torch.no_grad()
def calibrate(model, x):
    """Running statistics as they are on `x`: initial weights are so small that the logits would not depend on it."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    model.train()(x)
    return model.eval()


def run_through(model, x):
    """The output of every layer of `features`, then the logits."""
    outputs = []
    for layer in model.features:
        outputs.append(layer(outputs[-1] if outputs else x))
    return [*outputs, model(x)]


@torch.no_grad()
def assert_equal_layer_by_layer(model, reference, size):
    randomize(reference)
    model.eval().load_state_dict(reference.state_dict(), strict=True)
    assert list(model.state_dict()) == list(reference.state_dict())
    x = torch.randn(2, 3, size, size)
    pairs = list(zip(run_through(model, x), run_through(reference, x), strict=True))
    assert len(pairs) == 20
    for k, (found, expected) in enumerate(pairs):
        assert torch.equal(found, expected), f"layer {k}"


def test_it_is_torchvisions_network_at_224_pixels():
    assert_equal_layer_by_layer(MobileNetV2(MobileNetV2Settings(**PAPER)), TorchvisionMobileNetV2(), 224)


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_its_widths_are_torchvisions(width):
    reference = TorchvisionMobileNetV2(width_mult=width)
    assert_equal_layer_by_layer(MobileNetV2(MobileNetV2Settings(**PAPER, width=width)), reference, 64)


@pytest.mark.parametrize("expansion", [2, 10])
def test_expansion_applies_to_all_stages_but_the_first(expansion):
    reference = TorchvisionMobileNetV2(
        inverted_residual_setting=[(1 if t == 1 else expansion, c, n, s) for t, c, n, s in TABLE_2]
    )
    assert_equal_layer_by_layer(MobileNetV2(MobileNetV2Settings(**PAPER, expansion=expansion)), reference, 64)


@pytest.mark.parametrize("strides, changed, positions", [("reduce_16", [], 2), ("reduce_8", [1], 4)])
def test_strides_for_small_images(strides, changed, positions):
    """Stride 1 in the stem and, for reduce_8, in the stage of 24 channels; nothing else differs."""
    table = [(t, c, n, 1 if k in changed else s) for k, (t, c, n, s) in enumerate(TABLE_2)]
    reference = TorchvisionMobileNetV2(num_classes=10, inverted_residual_setting=table)
    reference.features[0][0].stride = (1, 1)
    model = MobileNetV2(MobileNetV2Settings(strides=strides))
    assert_equal_layer_by_layer(model, reference, 32)
    assert model.features(torch.zeros(1, 3, 32, 32)).shape[2:] == (positions, positions)


@torch.no_grad()
def test_a_5x5_kernel_that_is_zero_outside_3x3_computes_the_same():
    x = torch.randn(8, 3, 32, 32)
    plain = calibrate(randomize(make_mobilenetv2(seed=0, dropout=0.0)), x)
    wide = make_mobilenetv2(seed=0, kernel_size=5).eval()
    state, widened = plain.state_dict(), 0
    for name, value in wide.state_dict().items():
        if value.shape != state[name].shape:
            assert value.shape[1:] == (1, 5, 5), name  # the depthwise convolutions alone
            state[name] = F.pad(state[name], (1, 1, 1, 1))
            widened += 1
    assert widened == 17
    wide.load_state_dict(state)
    assert plain(x).std(0).min() > 1e-3
    torch.testing.assert_close(wide(x), plain(x), rtol=1e-4, atol=1e-5)


FORMULAS = {
    "relu6": lambda x: x.clamp(0, 6),
    "leaky_relu": lambda x: torch.where(x < 0, 0.01 * x, x),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "hardswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "hardsigmoid": lambda x: (x + 3).clamp(0, 6) / 6,
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
}


class Formula(nn.Module):
    def __init__(self, formula):
        super().__init__()
        self.forward = formula


@pytest.mark.parametrize("activation", ACTIVATIONS)
@torch.no_grad()
def test_activations_replace_every_relu6(activation):
    reference = randomize(TorchvisionMobileNetV2())
    for layer in list(reference.modules()):
        for name, child in layer.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(layer, name, Formula(FORMULAS[activation]))
    x = torch.randn(8, 3, 64, 64)
    calibrate(reference, x)
    model = MobileNetV2(MobileNetV2Settings(**PAPER, activation=activation)).eval()
    model.load_state_dict(reference.state_dict())
    for found, expected in zip(run_through(model, x), run_through(reference, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.std().item())


def test_squeeze_and_excitation_written_out():
    """Equations 2 to 4 of arXiv 1709.01507, between the depthwise convolution and the projection."""
    torch.manual_seed(0)
    block = randomize(InvertedResidual(24, 24, 1, 4, MobileNetV2Settings(squeeze=16)))
    expand, depthwise, squeeze, project, norm = block.conv
    assert squeeze.fc1.weight.shape == (6, 96, 1, 1)
    x = torch.randn(3, 24, 5, 5)
    hidden = depthwise(expand(x))
    reduced = (hidden.mean((2, 3)) @ squeeze.fc1.weight.flatten(1).T + squeeze.fc1.bias).clamp(min=0)
    scale = 1 / (1 + torch.exp(-(reduced @ squeeze.fc2.weight.flatten(1).T + squeeze.fc2.bias)))
    expected = x + norm(project(hidden * scale[:, :, None, None]))
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_squeeze_and_excitation_adds_two_small_layers_to_every_block():
    hidden = [32, 96] + 2 * [144] + 3 * [192] + 4 * [384] + 3 * [576] + 3 * [960]
    networks = {name: make_mobilenetv2(seed=0, **changes) for name, changes in VARIANTS.items()}
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    added = sum(2 * h * (h // 16) + h // 16 + h for h in hidden)
    assert counts["squeeze_excitation"] - counts["plain"] == added
    assert counts["plain"] == 3_504_872 - 990 * 1281  # torchvision's, with 10 classes for 1,000
    assert counts["silu"] == counts["leaky_relu"] == counts["hardswish"] == counts["hardsigmoid"] == counts["plain"]


@torch.no_grad()
def test_no_variant_changes_the_size_of_any_map():
    x = torch.randn(2, 3, 32, 32)
    sizes = {}
    for variant, changes in VARIANTS.items():
        *maps, logits = run_through(make_mobilenetv2(seed=0, **changes).eval(), x)
        assert logits.shape == (2, 10)
        sizes[variant] = [output.shape[2:] for output in maps]
        assert sizes[variant] == sizes["plain"], variant
    assert [size[0] for size in sizes["plain"]] == [32] * 4 + [16] * 3 + [8] * 7 + [4] * 5


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (4, 4), (2, 6), (7, 7)])
def test_padding_a_small_map_first_changes_no_output_and_no_gradient(size, stride, kernel_size):
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, kernel_size, stride, kernel_size // 2, groups=6, dtype=torch.float64)
    padded = PaddedConv2d(6, 6, kernel_size, stride, kernel_size // 2, groups=6, dtype=torch.float64)
    padded.load_state_dict(plain.state_dict())
    x, found = torch.randn(3, 6, *size, dtype=torch.float64), []
    for layer in (plain, padded):
        inputs = x.clone().requires_grad_()
        outputs = layer(inputs)
        gradients = torch.autograd.grad(outputs.square().sum(), [inputs, layer.weight, layer.bias])
        found.append([outputs, *gradients])
    for expected, own in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)


def test_variants_are_what_their_names_say():
    def made(variant):
        settings = MobileNetV2Settings(**VARIANTS[variant])
        changed = {key: value for key, value in vars(settings).items() if value != vars(MobileNetV2Settings())[key]}
        assert changed == VARIANTS[variant]
        return changed

    assert made("plain") == {}
    assert (made("expansion_2"), made("expansion_10")) == ({"expansion": 2}, {"expansion": 10})
    assert (made("width_half"), made("width_double")) == ({"width": 0.5}, {"width": 2.0})
    assert made("silu_expansion_10_se") == made("silu") | made("expansion_10") | made("squeeze_excitation")
    assert all(made(name) == {"activation": name} for name in ("leaky_relu", "silu", "hardswish", "hardsigmoid"))


def test_channels_are_rounded_as_torchvision_does():
    for width in (0.25, 0.35, 0.5, 0.75, 1.0, 1.4, 2.0):
        for channels in range(1, 700):
            assert round_channels(channels * width) == _make_divisible(channels * width, 8)


def test_the_seed_alone_decides_where_a_variant_starts():
    weights = [make_mobilenetv2(seed=seed, width=0.5).features[5].conv[2].weight for seed in (3, 3, 4)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match="activation is 'swish'; it must be one of relu6, leaky_relu"):
        make_mobilenetv2(seed=0, activation="swish")
    with pytest.raises(ValueError, match="strides is 'none'; it must be one of " + ", ".join(STRIDES)):
        MobileNetV2Settings(strides="none")
