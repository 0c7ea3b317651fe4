import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stages.mobilenetv2.network import VARIANTS
from stages.models.image_classifier import NETWORKS, ImageClassifier, make_image_classifier
from stages.small_cnn.network import NORMS

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
EVERY_NETWORK = [
    ("baseline_cnn", {}),
    *[("small_cnn", {"norm": norm}) for norm in NORMS],
    *[("mobilenetv2", {"variant": variant}) for variant in VARIANTS],
]
assert {name for name, _ in EVERY_NETWORK} == set(NETWORKS)


@pytest.fixture
def images(rng):
    return torch.from_numpy(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))


def make(name, **settings):
    return make_image_classifier(name, seed=0, mean=MEAN, std=STD, **settings)


@pytest.mark.parametrize("name, settings", EVERY_NETWORK)
def test_every_network_goes_by_name_and_trains_from_stored_images(images, name, settings):
    model = make(name, product_dtype=torch.bfloat16, **settings)
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
    assert make("small_cnn").network.blocks["C2"][0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("product_dtype", [torch.float32, torch.bfloat16])
def test_products_are_computed_in_the_type_asked_for(images, product_dtype):
    seen = []
    model = make("small_cnn", product_dtype=product_dtype).eval()
    model.network.blocks["C2"][0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    difference = (model(images) - make("small_cnn").eval()(images)).abs().max()
    assert seen == [product_dtype]
    assert difference == 0 if product_dtype == torch.float32 else 0 < difference < 0.05


def test_float32_holds_inside_anothers_autocast(images):
    model = make("baseline_cnn")
    with torch.autocast("cpu", torch.bfloat16):
        inside = model(images)
    assert torch.equal(inside, model(images))


def test_a_checkpoint_brings_its_own_statistics(images):
    trained, other = make("baseline_cnn"), make_image_classifier("baseline_cnn", seed=1, mean=[0.0] * 3, std=[1.0] * 3)
    other.load_state_dict(trained.state_dict())
    assert torch.equal(other(images), trained(images))


def test_the_seed_decides_and_unknown_names_are_refused():
    weights = [
        make_image_classifier("small_cnn", seed=seed, mean=MEAN, std=STD).network.blocks["C2"][0].weight
        for seed in (3, 3, 4)
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    with pytest.raises(ValueError, match="network is 'resnet'; it must be one of baseline_cnn, small_cnn, mobilenetv2"):
        make("resnet")
    with pytest.raises(TypeError, match="norm"):
        make("baseline_cnn", norm="batchnorm")
