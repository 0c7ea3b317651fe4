import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stages.baseline.network import make_baseline_cnn
from stages.mobilenetv2.network import ACTIVATIONS, make_mobilenetv2
from stages.models.image_classifier import ImageClassifier
from stages.small_cnn.network import NORM_LAYERS, make_small_cnn

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
EVERY_NETWORK = [
    (make_baseline_cnn, {}),
    *[(make_small_cnn, {"norm": norm}) for norm in NORM_LAYERS],
    (make_mobilenetv2, {"strides": "reduce_32"}),
    *[(make_mobilenetv2, {"strides": "reduce_32", "width": 0.1, "activation": name}) for name in ACTIVATIONS],
    (make_mobilenetv2, {"width": 0.1, "expansion": 1, "kernel_size": 1, "squeeze": 64}),  # the smallest of everything
]


@pytest.fixture
def images(rng):
    return torch.from_numpy(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))


def make(make_network=make_small_cnn, product_dtype=torch.float32, **settings):
    return ImageClassifier(make_network(seed=0, **settings), MEAN, STD, product_dtype)


@pytest.mark.parametrize("make_network, settings", EVERY_NETWORK)
def test_every_network_trains_from_stored_images(images, make_network, settings):
    model = make(make_network, torch.bfloat16, **settings)
    logits = model(images)
    assert logits.shape == (4, 10) and logits.dtype == torch.float32
    F.cross_entropy(logits, torch.arange(4)).backward()
    assert all(p.grad.isfinite().all() and p.dtype == torch.float32 for p in model.parameters())


def test_the_network_sees_standardised_pixels_with_channels_last_in_memory(images):
    seen = []
    model = ImageClassifier(nn.Flatten(), MEAN, STD)
    model.network.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(images)
    expected = (images.numpy().astype(np.float64) / 255 - MEAN) / STD
    np.testing.assert_allclose(seen[0].permute(0, 2, 3, 1).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert make().network.blocks["C2"][0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("product_dtype", [torch.float32, torch.bfloat16])
def test_products_are_computed_in_the_type_asked_for(images, product_dtype):
    seen = []
    model = make(product_dtype=product_dtype).eval()
    model.network.blocks["C2"][0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    difference = (model(images) - make().eval()(images)).abs().max()
    assert seen == [product_dtype]
    assert difference == 0 if product_dtype == torch.float32 else 0 < difference < 0.05


def test_float32_holds_inside_anothers_autocast(images):
    model = make(make_baseline_cnn)
    with torch.autocast("cpu", torch.bfloat16):
        inside = model(images)
    assert torch.equal(inside, model(images))


def test_a_checkpoint_brings_its_own_statistics(images):
    trained, other = make(make_baseline_cnn), ImageClassifier(make_baseline_cnn(seed=1), [0.0] * 3, [1.0] * 3)
    other.load_state_dict(trained.state_dict())
    assert torch.equal(other(images), trained(images))
