import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.measure.gradient_moments import (
    LayerMoments,
    collect_moments,
    describe_moments,
    mean_cosine,
    noise_scale,
    total_norms,
)
from tests.synthetic import make_model


@pytest.fixture
def gradients(rng):
    """Twelve batches of two layers' gradients around a common mean."""
    return [rng.normal(0.3, 1, (12, 4, 3)), rng.normal(-0.2, 2, (12, 5))]


def moments_of(gradients):
    layers = [LayerMoments(torch.ones(batches.shape[1:], dtype=torch.float64)) for batches in gradients]
    for layer, batches in zip(layers, gradients, strict=True):
        for gradient in batches:
            layer.add(torch.from_numpy(gradient))
    return layers


def test_the_figures_are_those_of_the_stacked_gradients(gradients):
    found = describe_moments(moments_of(gradients), batch_size=32)
    flat = np.concatenate([batches.reshape(12, -1) for batches in gradients], axis=1)
    norms = np.linalg.norm(flat, axis=1)
    ratio = np.abs(flat.mean(0)) / flat.std(0, ddof=1)
    assert found["grad_norm"] == pytest.approx(norms.mean())
    assert found["grad_norm_std"] == pytest.approx(norms.std(ddof=1))
    assert found["weight_norm"] == pytest.approx(np.sqrt(17))
    assert found["grad_to_weight"] == pytest.approx(norms.mean() / np.sqrt(17))
    assert found["snr_median"] == pytest.approx(np.median(ratio))
    assert found["snr_above_1"] == pytest.approx((ratio > 1).mean())
    covariance_trace = flat.var(0, ddof=1).sum()  # of a batch's gradient, so 32 times less than an image's
    gradient_square = np.square(flat.mean(0)).sum() - covariance_trace / 12
    assert found["noise_scale"] == pytest.approx(32 * covariance_trace / gradient_square)


def test_cosines_are_between_successive_batches(gradients):
    flat = torch.from_numpy(np.concatenate([batches.reshape(12, -1) for batches in gradients], axis=1))
    assert mean_cosine(moments_of(gradients)) == pytest.approx(F.cosine_similarity(flat[1:], flat[:-1]).mean().item())


def test_the_noise_scale_of_simulated_images(rng):
    """Images whose gradients have a known mean and covariance: tr(Sigma) / |G|^2 = 50 * 4 / 2."""
    images = rng.normal(0, 2, (64_000, 50)) + np.sqrt(2 / 50)
    small, big = (np.square(images.reshape(-1, size, 50).mean(1)).sum(1).mean() for size in (16, 640))
    assert noise_scale(small, big, 16, 640) == pytest.approx(100, rel=0.05)


def test_a_gradient_lost_in_the_noise_has_no_noise_scale():
    assert noise_scale(1.0, 0.05, 10, 100) is None


@pytest.mark.parametrize("norm", ["batchnorm", "layernorm", "frn"])
def test_moments_are_those_of_autograd_and_nothing_moves(backbone_state, norm):
    """Against a plain backward pass with dropout off, the batch statistics of BatchNorm included."""
    torch.manual_seed(0)
    batches = [(torch.randn(8, 2, 2, 320).half(), torch.randint(0, 10, (8,))) for _ in range(3)]
    model = make_model(backbone_state, norm, seed=0, dropout=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    reference = copy.deepcopy(model).train()
    moments = collect_moments(model, batches, dropout_seed=0)
    for index, (x, y) in enumerate(batches):
        reference.zero_grad()
        F.cross_entropy(reference(x), y).backward()
        for name, parameter in reference.named_parameters():
            square = parameter.grad.double().square().sum().item()
            assert moments[name].squared_norms[index] == pytest.approx(square, rel=1e-4, abs=1e-12)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_total_norms_are_those_of_all_layers_as_one_vector(gradients):
    rows = np.concatenate([batches.reshape(len(batches), -1) for batches in gradients], axis=1)
    np.testing.assert_allclose(total_norms(moments_of(gradients)), np.linalg.norm(rows, axis=1), rtol=1e-5)
