import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.measure.loss_surface import ROWS, compute_surface, cosine, measure_surface, random_direction
from tests.synthetic import make_model

ALPHAS, BETAS = np.linspace(-1, 1, 5), np.linspace(-0.5, 0.5, 3)


@pytest.fixture
def data():
    torch.manual_seed(0)
    return torch.randn(70, 2, 2, 320).half(), torch.arange(70) % 10


def trained_like(backbone_state, norm, placement="vector"):
    """A model in eval mode whose norm layer is away from its initial state."""
    model = make_model(backbone_state, norm, seed=0, placement=placement).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for tensor in (model.head.norm.weight, model.head.norm.bias):
            tensor += 0.3 * torch.randn_like(tensor)
    if norm == "batchnorm":
        model.head.norm.running_mean.normal_()
        model.head.norm.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("placement", ["vector", "spatial"])
@pytest.mark.parametrize("norm", ["batchnorm", "layernorm", "frn"])
def test_every_grid_value_is_a_plain_forward_pass_with_perturbed_weights(backbone_state, data, norm, placement):
    model = trained_like(backbone_state, norm, placement)
    before = copy.deepcopy(model.state_dict())
    a, b = random_direction(model, 0, 0), random_direction(model, 0, 1)
    loss, accuracy = compute_surface(model, *data, ALPHAS, BETAS, a, b, on_images=lambda n: None)
    for i, alpha in enumerate(ALPHAS):
        for j, beta in enumerate(BETAS):
            perturbed = copy.deepcopy(model).double()
            with torch.no_grad():
                for name, parameter in perturbed.named_parameters():
                    if name in a:
                        parameter += alpha * a[name] + beta * b[name]
                x = data[0].double()
                z = F.linear(x, perturbed.block[0].weight.flatten(1)).permute(0, 3, 1, 2)
                logits = perturbed.head(F.relu6(perturbed.block[1](z)).permute(0, 2, 3, 1))
            assert loss[i, j] == pytest.approx(F.cross_entropy(logits, data[1]).item(), rel=2e-5)
            assert accuracy[i, j] == pytest.approx((logits.argmax(1) == data[1]).double().mean().item(), abs=1e-9)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("placement", ["vector", "spatial"])
def test_the_surface_does_not_depend_on_how_many_rows_are_computed_at_a_time(
    backbone_state, data, placement, monkeypatch
):
    model = trained_like(backbone_state, "frn", placement)
    directions = random_direction(model, 0, 0), random_direction(model, 0, 1)
    surfaces = []
    for rows in (12, 5000):
        monkeypatch.setitem(ROWS, "cpu", rows)
        surfaces.append(compute_surface(model, *data, ALPHAS, BETAS, *directions, on_images=lambda n: None))
    few, many = surfaces
    np.testing.assert_allclose(few[0], many[0], rtol=1e-5)
    np.testing.assert_array_equal(few[1], many[1])


def test_directions_are_filter_normalised_and_leave_biases_and_norm_alone(backbone_state):
    model = trained_like(backbone_state, "frn")
    direction = random_direction(model, 0, 0)
    assert set(direction) == {name for name in dict(model.named_parameters()) if name.startswith("head.")}
    for layer in ("fc1", "fc2"):
        weight = getattr(model.head, layer).weight
        torch.testing.assert_close(direction[f"head.{layer}.weight"].norm(dim=1), weight.norm(dim=1))
    for name in ("head.fc1.bias", "head.fc2.bias", "head.norm.weight", "head.norm.bias", "head.norm.eps_l"):
        assert not direction[name].any()


def test_directions_are_seeded_and_nearly_orthogonal(backbone_state):
    model = trained_like(backbone_state, "layernorm")
    a, b = random_direction(model, 0, 0), random_direction(model, 0, 1)
    assert torch.equal(random_direction(model, 0, 0)["head.fc1.weight"], a["head.fc1.weight"])
    assert not torch.equal(random_direction(model, 1, 0)["head.fc1.weight"], a["head.fc1.weight"])
    assert cosine(a, a) == pytest.approx(1) and abs(cosine(a, b)) < 0.02


def test_figures_of_a_paraboloid():
    alphas = betas = np.linspace(-1, 1, 21)
    loss = 0.5 + 2 * alphas[:, None] ** 2 + 3 * betas[None, :] ** 2
    found = measure_surface(alphas, betas, loss, np.zeros_like(loss))
    assert found["center_loss"] == found["min_loss"] == 0.5 and found["max_loss"] == pytest.approx(5.5)
    assert found["curvature_alpha"] == pytest.approx(4) and found["curvature_beta"] == pytest.approx(6)
    inside = [(i, j) for i in range(-10, 11) for j in range(-10, 11) if 2 * i**2 + 3 * j**2 <= 10]
    assert found["flat_share"] == pytest.approx(len(inside) / 441)
