import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.core.files import StageError
from stages.models import norms
from stages.models.norms.frn import FilterResponseNorm
from stages.reporting import norm_check
from stages.reporting.norm_check import check_norm
from tests.conftest import ROOT


def frn_in_numpy(x, gamma, beta, eps, tau=None):
    """Equations 1 to 3 of arXiv 1911.09737, in float64, for (N, C, H, W)."""
    x = x.astype(np.float64)
    y = np.empty_like(x)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            nu2 = (x[n, c] ** 2).sum() / x[n, c].size
            y[n, c] = gamma[c] * x[n, c] / np.sqrt(nu2 + eps[c]) + beta[c]
            if tau is not None:
                y[n, c] = np.maximum(y[n, c], tau[c])
    return y


def randomize(layer, rng):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape)))
    return {name: value.detach().numpy() for name, value in layer.named_parameters()}


@pytest.mark.parametrize("learned", [None, 1e-4])
@pytest.mark.parametrize("tlu", [False, True])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (3, 5)])
def test_frn_is_the_papers(rng, shape, learned, tlu):
    layer = FilterResponseNorm(5, learned_eps=learned, tlu=tlu)
    values = randomize(layer, rng)
    x = rng.normal(size=shape).astype(np.float32)
    eps = 1e-6 + np.abs(values["eps_l"]) if learned else np.full(5, 1e-6)
    expected = frn_in_numpy(
        x.reshape(*shape, *[1] * (4 - x.ndim)), values["weight"], values["bias"], eps, values.get("tau")
    )
    np.testing.assert_allclose(
        layer(torch.from_numpy(x)).detach().numpy(), expected.reshape(shape), rtol=2e-5, atol=2e-6
    )


@pytest.mark.parametrize("shape", [(3, 4, 2, 3), (6, 4)])
def test_gradients_agree_with_finite_differences(rng, shape):
    layer = FilterResponseNorm(4, learned_eps=0.3, tlu=True)
    randomize(layer, rng)
    x = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
    parameters = list(layer.parameters())
    analytic = torch.autograd.grad(layer(x).square().sum(), parameters)
    for parameter, grad in zip(parameters, analytic, strict=True):
        for k in range(len(parameter)):
            step = 1e-3
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter[k] += sign * step
                    values.append(layer(x).double().square().sum().item())
                    parameter[k] -= sign * step
            assert grad[k].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-2, abs=2e-2)


def test_the_gradient_on_a_vector_does_not_cancel():
    """dy/dx = eps / (x^2 + eps)^1.5, also where it is tiny; autograd of the plain formula is off by percents there."""
    x = torch.linspace(-30, 30, 61)[:, None].requires_grad_()
    layer = FilterResponseNorm(1, eps=1e-6)
    layer(x).sum().backward()
    exact = 1e-6 / (x.detach().double() ** 2 + 1e-6) ** 1.5
    torch.testing.assert_close(x.grad.double(), exact, rtol=1e-5, atol=0)


def test_second_derivatives_on_a_vector():
    x = torch.tensor([[0.3], [-1.2]], dtype=torch.float64, requires_grad=True)
    eps = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    from stages.models.norms.frn import UnitExtentNormalize

    assert torch.autograd.gradcheck(UnitExtentNormalize.apply, (x, eps), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(UnitExtentNormalize.apply, (x, eps))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4, 3)])
def test_half_precision_does_not_overflow(dtype, shape):
    """The square of 1000 is beyond float16."""
    layer = FilterResponseNorm(3)
    x = torch.full(shape, 1000.0, dtype=dtype)
    y = layer(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, torch.ones_like(x))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"takes \(N, C\) or \(N, C, H, W\), not \(2, 3\)"):
        FilterResponseNorm(4)(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def make_layer(units, placement, frn_learned_eps): ...", "has no attribute 'NORM'"),
        ("from torch import nn, nothing_of_torchs", "cannot import name"),
        ("NORM = Norm('Mine', '#123456')", "name 'Norm' is not defined"),
        ("from stages.models.norms import Norm\nNORM = Norm('Mine', '#123456')", "missing 4 required"),
        ("NORM = (", "was never closed"),
    ],
)
def test_a_file_that_defines_no_norm_is_named(tmp_path, monkeypatch, text, said):
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.setattr(norms, "__path__", [str(tmp_path)])
    monkeypatch.setattr(norms, "NORMS", ["mine"])
    monkeypatch.delitem(sys.modules, "stages.models.norms.mine", raising=False)
    with pytest.raises(StageError, match=r"norms/mine\.py is no norm .*as groupnorm\.py does") as caught:
        norms.load_norm("mine")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", norms.NORMS)
def test_what_a_norms_file_says_can_be_drawn_set_and_cited(monkeypatch, name):
    monkeypatch.chdir(ROOT)
    check_norm(name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"color": "sky blue"}, "color is 'sky blue'"),
        ({"reference": "mine2026"}, "reference is 'mine2026'; it must be None or a key of"),
        ({"equation": "x - mean(x)"}, "unknown variable: mean"),
        ({"equation": "x - sqrt(mu"}, "unclosed delimiter"),
    ],
)
def test_what_the_report_would_fail_on_is_said_before_anything_trains(monkeypatch, changes, said):
    monkeypatch.chdir(ROOT)
    mine = replace(norms.load_norm("groupnorm"), **changes)
    monkeypatch.setattr(norm_check, "load_norm", lambda name: mine)
    with pytest.raises(StageError, match=r"norms/mine\.py: ") as caught:
        check_norm("mine")
    assert said in str(caught.value)
