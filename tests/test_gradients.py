import numpy as np
import pytest
import torch
from torch import nn

from stages.training.gradient_tracking import (
    BINS,
    EDGES,
    GradientTracker,
    clip_gradients,
    find_clip_factors,
    magnitude_shares,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def backward(model, scale=1.0):
    model.zero_grad()
    (scale * model(torch.ones(5, 4)).square().sum()).backward()


def test_norms_are_those_of_parameter_gradients_before_clipping(model):
    """Against autograd called by itself, without the tracker and without clipping."""
    scales = [1.0, 100.0, 0.01]
    with GradientTracker(model) as tracker:
        for scale in scales:
            backward(model, scale)
            tracker.record()
            clip_gradients(model, 1.0)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(model(torch.ones(5, 4)).square().sum(), parameters)
    norms = np.array([gradient.norm().item() for gradient in gradients])
    np.testing.assert_allclose(tracker.layer_norms, np.outer(scales, norms), rtol=1e-5)
    np.testing.assert_allclose(tracker.total_norms, np.linalg.norm(norms) * np.array(scales), rtol=1e-5)
    assert list(tracker.parameters) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_clipping_limits_the_total_norm_and_keeps_the_direction(model):
    backward(model, 100.0)
    before = torch.cat([p.grad.flatten() for p in model.parameters()]).clone()
    clip_gradients(model, 0.5)
    after = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert after.norm().item() == pytest.approx(0.5, rel=1e-4)
    torch.testing.assert_close(after / after.norm(), before / before.norm())
    clip_gradients(model, None)
    clip_gradients(model, 1e9)
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in model.parameters()]), after)


def test_the_clip_factors_are_what_torch_scales_by(model):
    norms, expected = [], []
    for scale in (1.0, 100.0, 0.0001):
        backward(model, scale)
        before = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 7.0)
        norms.append(before)
        expected.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item() / before)
    found = find_clip_factors(np.array(norms), 7.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert {True, False} == set(found < 1)
    assert find_clip_factors(np.array([0.0, 1e6]), None).tolist() == [1.0, 1.0]
    assert find_clip_factors(np.array([0.0]), 7.0).tolist() == [1.0]


def test_the_histogram_is_numpys(rng):
    gradient = (10.0 ** rng.uniform(-14, 3, 5000)).astype(np.float32) * rng.choice([-1, 1], 5000)
    shares = magnitude_shares(torch.from_numpy(gradient))
    expected, _ = np.histogram(np.abs(gradient), [0, *EDGES, np.inf])
    np.testing.assert_allclose(shares, expected / 5000)
    assert len(shares) == len(BINS)


def test_histograms_are_taken_at_the_first_step_before_clipping(model):
    with GradientTracker(model) as tracker:
        for scale in (1.0, 1000.0):
            backward(model, scale)
            if scale == 1.0:
                expected = magnitude_shares(model[0].weight.grad)
            tracker.record()
            clip_gradients(model, 1e-9)
    np.testing.assert_array_equal(tracker.histograms["0.weight"], expected)


def test_movement_is_taken_from_the_first_two_steps(model):
    """Plain gradient descent, where the first step is known: learning rate times the clipped gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weights, gradients = [], []
    with GradientTracker(model) as tracker:
        for _ in range(3):
            backward(model)
            weights.append([p.detach().clone() for p in model.parameters()])
            gradients.append([p.grad.clone() for p in model.parameters()])
            tracker.record()
            clip_gradients(model, 0.5)
            optimizer.step()
    np.testing.assert_allclose(tracker.weight_norms, [w.norm() for w in weights[0]], rtol=1e-6)
    steps = [0.1 * find_clip_factors(tracker.total_norms, 0.5)[0] * g.norm().item() for g in gradients[0]]
    np.testing.assert_allclose(tracker.update_norms, steps, rtol=1e-4)
    cosines = [torch.cosine_similarity(a.flatten(), b.flatten(), 0) for a, b in zip(*gradients[:2], strict=True)]
    np.testing.assert_allclose(tracker.cosines, cosines, rtol=1e-5)


def test_one_step_has_no_movement(model):
    with GradientTracker(model) as tracker:
        backward(model)
        tracker.record()
    assert np.isnan([tracker.weight_norms, tracker.update_norms, tracker.cosines]).all()
