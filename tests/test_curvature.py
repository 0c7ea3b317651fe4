"""Against exact Hessians of small heads and against closed forms of quadratics."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from curvlinops import HessianLinearOperator
from curvlinops.examples import TensorLinearOperator
from scipy.stats import norm as normal
from threadpoolctl import threadpool_info
from torch import nn

from stages.measure.head_curvature import PATH, SLICE, HeadCurvature, measure_pair, summarize_curvature, tabulate_grid
from stages.measure.hessian import (
    HeadHessian,
    ball_sharpness,
    box_sharpness,
    convex_share,
    curve_along,
    estimate_density,
    estimate_trace,
    extreme_eigenvalues,
    find_eigenpairs,
    flatten,
    make_loss,
    move_head,
    ratio_of,
    slice_loss,
    spread,
    weights_of,
)
from stages.measure.loss_surface import random_direction
from stages.models.heads import make_head
from stages.models.norms.frn import FilterResponseNorm
from stages.models.transfer_model import activate_in_batches
from stages.reporting.curvature_results import MEASURES, CurvatureResults, correlate_with_gap, rank_correlation
from tests.synthetic import make_model

NORMS = {
    "batchnorm": lambda: nn.BatchNorm1d(4),
    "layernorm": lambda: nn.LayerNorm(4),
    "frn": lambda: FilterResponseNorm(4, learned_eps=0.3),
}


class SmallHead(nn.Sequential):
    """FC(3 -> 4), norm, ReLU, FC(4 -> 3): as the real head, with few enough parameters for an exact Hessian."""

    def __init__(self, norm):
        torch.manual_seed(1)
        super().__init__(nn.Linear(3, 4), NORMS[norm](), nn.ReLU(), nn.Linear(4, 3))
        with torch.no_grad():
            for parameter in self[1].parameters():
                parameter += 0.3 * torch.randn_like(parameter)
            for buffer in self[1].buffers():
                if buffer.is_floating_point():
                    buffer.uniform_(0.5, 2)
        self.double().eval()


@pytest.fixture
def small_data():
    torch.manual_seed(2)
    return torch.randn(40, 3).double(), torch.arange(40) % 3


def exact_hessian(head, block, labels):
    """By torch.autograd.functional, from a loss that is written out again."""
    names, shapes = zip(*[(name, p.shape) for name, p in head.named_parameters()], strict=True)

    def loss(w):
        parts, offset = {}, 0
        for name, shape in zip(names, shapes, strict=True):
            parts[name] = w[offset : offset + shape.numel()].view(shape)
            offset += shape.numel()
        logits = torch.func.functional_call(head, parts, (block,))
        return -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean()

    w = torch.cat([p.detach().flatten() for p in head.parameters()])
    return torch.autograd.functional.hessian(loss, w)


@pytest.mark.parametrize("norm", NORMS)
def test_eigenpairs_trace_and_products_are_those_of_the_exact_hessian(small_data, norm):
    head = SmallHead(norm)
    exact = exact_hessian(head, *small_data)
    hessian = HeadHessian(head, *small_data)
    torch.testing.assert_close(hessian @ torch.eye(len(exact)).double(), exact)
    expected = np.linalg.eigvalsh(exact)
    values, vectors = find_eigenpairs(hessian, 3, seed=0, tolerance=1e-9)
    np.testing.assert_allclose(values, np.r_[expected[:3], expected[-3:]], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(exact @ vectors, vectors * torch.from_numpy(values), rtol=1e-4, atol=1e-7)
    assert expected[0] < -1e-3 and expected[-1] > 0.05
    trace, error = estimate_trace(hessian, values, vectors, probes=2000, seed=0)
    assert trace == pytest.approx(exact.trace().item(), abs=4 * error) and error < 0.03 * trace
    direction = torch.randn(len(exact)).double()
    assert curve_along(hessian, direction) == pytest.approx((direction @ exact @ direction).item())
    np.testing.assert_allclose(
        extreme_eigenvalues(head, *small_data, seed=0), expected[[0, -1]], rtol=0.02, atol=1e-3 * expected[-1]
    )


@pytest.mark.parametrize("norm", ["batchnorm", "frn"])
def test_products_on_the_real_head_are_those_of_curvlinops(norm):
    """curvlinops goes forward over reverse. For LayerNorm torch gets that wrong, see HeadHessian."""
    torch.manual_seed(0)
    head, block, labels = (
        make_head(norm, 20, seed=0).double().eval(),
        torch.rand(30, 20).double(),
        torch.arange(30) % 10,
    )
    reference = HessianLinearOperator(head, nn.CrossEntropyLoss(), list(head.parameters()), [(block, labels)])
    vectors = torch.randn(reference.shape[0], 2).double()
    torch.testing.assert_close(HeadHessian(head, block, labels) @ vectors, reference @ vectors)


def diagonal(values):
    return TensorLinearOperator(torch.diag(torch.as_tensor(values, dtype=torch.float64)))


def test_the_trace_of_a_diagonal_is_exact_and_its_error_counts_the_unknown_part(rng):
    """v^T D v is tr D for every v of signs; off the diagonal, the variance is twice the sum of squares over probes."""
    values = np.linspace(-1, 5, 30)
    found = find_eigenpairs(diagonal(values), 2, seed=0, tolerance=0)
    trace, error = estimate_trace(diagonal(values), *found, probes=3, seed=0)
    assert trace == pytest.approx(values.sum())
    matrix = rng.normal(size=(30, 30))
    matrix = torch.from_numpy(matrix + matrix.T)
    none = np.empty(0), torch.empty(30, 0).double()
    _, error = estimate_trace(TensorLinearOperator(matrix), *none, probes=4000, seed=0)
    variance = 2 * (matrix.square().sum() - matrix.diagonal().square().sum()).item()
    assert error == pytest.approx(np.sqrt(variance / 4000), rel=0.05)
    everything = find_eigenpairs(TensorLinearOperator(matrix), 14, seed=0, tolerance=0)
    assert estimate_trace(TensorLinearOperator(matrix), *everything, probes=4000, seed=0)[1] < error / 5


def test_the_density_of_a_known_diagonal():
    """A tenth of the eigenvalues near 4, the rest near 0: Gaussian bumps with those masses and means."""
    matrix = diagonal(np.r_[np.full(900, 0.0), np.full(100, 4.0)] + np.linspace(0, 0.02, 1000))
    values, density = estimate_density(matrix, 0.0, 4.02, steps=30, repeats=8, seed=0)
    assert np.trapezoid(density, values) == pytest.approx(1, abs=1e-3)
    high = values > 2
    assert np.trapezoid(density[high], values[high]) == pytest.approx(0.1, abs=0.02)
    assert values[high][density[high].argmax()] == pytest.approx(4.01, abs=0.02)
    assert values[~high][density[~high].argmax()] == pytest.approx(0.01, abs=0.02)
    width = 1.1 * 4.02 / (30 - 1) / np.sqrt(8 * np.log(3))  # that of Papyan's kernel, kappa = 3
    peak = density[high].max() / (0.1 * normal.pdf(0, scale=width))
    assert peak == pytest.approx(1, abs=0.2)


def quadratic(h):
    return lambda w: 0.5 * (h * w.square()).sum()


def test_sharpness_of_a_quadratic_in_the_ball():
    h, w = torch.tensor([1.0, 4.0, 0.5]).double(), torch.tensor([0.3, -0.2, 1.0]).double()
    g = h * w
    expected = 0.1 * g.norm() + 0.005 * (h * g.square()).sum() / g.square().sum()
    assert ball_sharpness(quadratic(h), w, 0.1) == pytest.approx(expected.item())
    same = torch.full((3,), 2.0).double()  # there the step is the maximum over the ball: L = (|w| + rho)^2
    exact = (w.norm() + 0.1) ** 2 - w.norm() ** 2
    assert ball_sharpness(quadratic(same), w, 0.1) == pytest.approx(exact.item())


def test_sharpness_of_quadratics_in_the_box():
    """Separable: every coordinate goes to the end away from zero. Coupled: the best of all corners."""
    h, w = torch.tensor([1.0, 4.0, 0.5]).double(), torch.tensor([0.3, -0.2, 1.0]).double()
    ends = w + 0.1 * (w.abs() + 1) * w.sign()
    start = quadratic(h)(w)
    expected = 100 * (quadratic(h)(ends) - start) / (1 + start)
    assert box_sharpness(quadratic(h), w, 0.1) == pytest.approx(expected.item())
    matrix, w = torch.tensor([[4.0, 1.5], [1.5, 1.0]]).double(), torch.tensor([3.0, -4.6]).double()

    def coupled(v):
        return 0.5 * v @ matrix @ v

    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 2)
    best = max(coupled(w + 0.5 * (w.abs() + 1) * corner).item() for corner in corners)
    expected = 100 * (best - coupled(w).item()) / (1 + coupled(w).item())
    assert box_sharpness(coupled, w, 0.5) == pytest.approx(expected)  # not the corner of the first step


def test_ratios_and_convex_points():
    lowest, highest = np.array([-0.05, -0.3, 0.2, -4.0]), np.array([1.0, 2.0, 2.0, 2.0])
    np.testing.assert_allclose(ratio_of(lowest, highest), [0.05, 0.15, 0.1, 2.0])
    assert convex_share(lowest, highest) == 0.5


@pytest.fixture
def model(backbone_state):
    model = make_model(backbone_state, "layernorm", seed=0).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture
def data():
    torch.manual_seed(0)
    return torch.randn(30, 2, 2, 320).half(), torch.arange(30) % 10


def plain_loss(model, features, labels):
    with torch.no_grad():
        return F.cross_entropy(model(features), labels).item()


def test_the_loss_is_a_plain_forward_pass_and_the_head_is_left_alone(model, data):
    block, before = activate_in_batches(model, data[0]), copy.deepcopy(model.head.state_dict())
    loss, w = make_loss(model.head, block, data[1]), weights_of(model.head)
    assert loss(w).item() == pytest.approx(plain_loss(model, *data), rel=1e-6)
    direction = random_direction(model, 0, 0)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            parameter += 0.5 * direction[name] if name in direction else 0
    assert loss(w + 0.5 * flatten(direction)).item() == pytest.approx(plain_loss(moved, *data), rel=1e-5)
    step = 0.5 * flatten(direction)
    torch.testing.assert_close(weights_of(move_head(model.head, step)), weights_of(moved.head))
    box_sharpness(loss, w, 0.01)
    assert all(torch.equal(value, before[name]) for name, value in model.head.state_dict().items())


def test_the_path_goes_from_the_initial_to_the_final_weights(backbone_state, model, data):
    initial = make_model(backbone_state, "layernorm", seed=0).eval()
    head = HeadCurvature(model.head, activate_in_batches(model, data[0]), data[1], eigenvalues=2, seed=0)
    table = head.tabulate_slices(weights_of(initial.head))
    path, first = (table[table["measure"] == name] for name in ("path", "eigenvector1"))
    np.testing.assert_array_equal(path["x"], PATH)
    ends = [path["value"].iloc[np.abs(PATH - end).argmin()] for end in (0, 1)]
    assert ends == pytest.approx([plain_loss(initial, *data), plain_loss(model, *data)], rel=1e-5)
    np.testing.assert_array_equal(first["x"], SLICE)
    for position in (0, 20, 33):
        moved = copy.deepcopy(model)
        moved.head = move_head(model.head, SLICE[position] * head.vectors[:, -1])
        assert first["value"].iloc[position] == pytest.approx(plain_loss(moved, *data), rel=1e-5)


def test_a_pair_of_directions_on_the_model(model, data):
    head = HeadCurvature(model.head, activate_in_batches(model, data[0]), data[1], eigenvalues=1, seed=0)
    a, b = (random_direction(model, 0, which) for which in (0, 1))
    found = measure_pair(model, head.hessian, *data, a, b, span=0.5)
    loss, w, grid = head.loss, head.weights, np.linspace(-0.5, 0.5, 11)
    center = loss(w)
    plane = [slice_loss(loss, w + alpha * flatten(a), flatten(b), grid) for alpha in grid.tolist()]
    assert found["flat_share"] == pytest.approx((np.array(plane) <= center.item() + 0.1).mean())
    seconds = [
        torch.autograd.functional.hessian(lambda t, d=d: loss(w + t * flatten(d)), torch.tensor(0.0)) for d in (a, b)
    ]
    assert found["curvature"] == pytest.approx(np.mean(seconds), rel=1e-4)


def test_the_grid_has_the_plain_values_at_its_centre_and_alpha_first(small_data):
    head = SmallHead("layernorm")
    torch.manual_seed(4)
    a, b = torch.randn(2, len(weights_of(head))).double()
    grid = np.array([-0.5, 0.0, 0.5])
    extremes = np.array(
        [
            [extreme_eigenvalues(move_head(head, alpha * a + beta * b), *small_data, 0) for beta in grid]
            for alpha in grid
        ]
    )
    table = tabulate_grid(grid, extremes)
    at = table.set_index(["measure", "x", "y"])["value"]
    plain = find_eigenpairs(HeadHessian(head, *small_data), 1, 0)[0]
    np.testing.assert_allclose([at["lambda_min", 0, 0], at["lambda_max", 0, 0]], plain, rtol=0.02)
    moved = exact_hessian(move_head(head, 0.5 * a - 0.5 * b), *small_data)
    assert at["lambda_max", 0.5, -0.5] == pytest.approx(np.linalg.eigvalsh(moved)[-1], rel=0.02)


def test_the_summary_is_the_mean_over_seeds_and_the_range_over_pairs():
    names = "lambda_max lambda_min ratio trace trace_error sharpness_box sharpness_ball gap".split()
    seeds = pd.DataFrame({name: [1.0, 3.0] for name in names})
    for name in ("curvature", "flat_share"):
        seeds[[f"{name}_pair0", f"{name}_pair1"]] = [[1.0, 2.0], [3.0, 7.0]]
    found = summarize_curvature(seeds, np.array([[[-0.05, 1.0], [-0.5, 1.0], [-0.2, 1.0]]]))
    assert found["trace"] == 2 and found["curvature"] == 3.25 and found["curvature_spread"] == 2.5
    assert found["convex_share"] == pytest.approx(1 / 3) and found["grid_ratio"] == pytest.approx(0.2)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(model, data):
    def measure(seed):
        torch.rand(1)  # whatever the global generator has drawn before
        head = HeadCurvature(model.head, activate_in_batches(model, data[0]), data[1], eigenvalues=2, seed=seed)
        figures = head.measure(probes=3, box=1e-3, ball=0.05)
        names = ["lambda_min", "lambda_min2", "lambda_max2", "lambda_max"]
        assert [figures[name] for name in names] == head.values.tolist()
        return figures, head.tabulate_density(6, 2)

    torch.manual_seed(11)
    first, again, other = (measure(seed) for seed in (0, 0, 1))
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    measure(0)
    assert torch.equal(torch.rand(2), expected[1:])  # the global generator is as it was
    assert first[0] == again[0] and first[1].equals(again[1])
    assert first[0]["trace"] != other[0]["trace"] and not first[1].equals(other[1])


def test_jobs_come_back_in_order_each_on_one_thread():
    def count_threads():
        return {
            torch.get_num_threads(),
            *(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"),
        }

    jobs = [lambda k=k: (k, count_threads()) for k in range(5)]
    assert spread(jobs, torch.device("cpu")) == [(k, {1}) for k in range(5)]


def test_rank_correlation_and_its_interval(rng):
    """Ranks alone count; the interval covers the true value about as often as it says."""
    x = rng.normal(size=18)
    y = x + rng.normal(size=18)
    rho, low, high, p = rank_correlation(x, y)
    ranks = [pd.Series(values).rank() for values in (x, y)]
    assert rho == pytest.approx(np.corrcoef(*ranks)[0, 1]) and -1 < low < rho < high < 1
    assert rank_correlation(np.exp(x), y)[:3] == pytest.approx((rho, low, high))
    reach = 1.959964 * np.sqrt((1 + rho**2 / 2) / 15)
    assert np.arctanh(high) - np.arctanh(rho) == pytest.approx(reach) and 0 < p < 1
    assert rank_correlation(x, 2 * x)[:3] == pytest.approx((1, 1, 1))
    assert rank_correlation(x, np.ones(18)) == rank_correlation(x[:3], y[:3]) == (0, -1, 1, 1)
    covered = []
    for _ in range(300):
        pair = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 18)
        _, low, high, _ = rank_correlation(*pair.T)
        covered.append(low < 6 / np.pi * np.arcsin(0.3) < high)
    assert 0.9 < np.mean(covered) < 0.99


def test_a_difference_between_norms_alone_does_not_show_within_norms(rng):
    """Gap and every measure differ between norms; within them only `trace` follows the gap."""
    seeds = {}
    for shift, norm in enumerate(("batchnorm", "layernorm", "frn")):
        for mode in ("noclip", "clip"):
            gap = shift + rng.normal(0, 0.1, 6)
            columns = {name: shift + rng.normal(0, 0.1, 6) for name in [*MEASURES, "lambda_min"]}
            frame = pd.DataFrame(columns | {"gap": gap, "trace": shift + 2 * gap, "lambda_min": -columns["negative"]})
            for name in ("curvature", "flat_share"):
                frame[f"{name}_pair0"] = frame[f"{name}_pair1"] = frame.pop(name)
            seeds[f"{norm}-{mode}"] = frame
    results = CurvatureResults(["batchnorm", "layernorm", "frn"], list(seeds), seeds, {}, "")
    table = correlate_with_gap(results.models).set_index(["scope", "measure"])
    assert (table.loc["all models", "rho"] > 0.7).all() and (table.loc["all models", "p_adjusted"] < 0.05).all()
    within = table.loc["within norms"]
    assert within.loc["trace", "rho"] > 0.9 and within.loc["trace", "p_adjusted"] < 0.05
    assert (within.drop("trace")["rho"].abs() < 0.6).all() and (within["p_adjusted"] >= within["p"]).all()


def test_the_loss_has_a_head_of_its_own_which_other_threads_cannot_meet():
    """functional_call swaps the parameters of the module that it is given: seen by its forward hooks."""
    head = make_head("batchnorm", 12, seed=0).eval()
    block, labels = torch.randn(20, 12), torch.arange(20) % 10
    loss, seen = make_loss(head, block, labels), []
    head.norm.register_forward_hook(lambda *_: seen.append("the head itself"))
    value = loss(weights_of(head) + 0.01).item()
    assert seen == []
    expected = F.cross_entropy(move_head(head, torch.full_like(weights_of(head), 0.01))(block), labels).item()
    assert value == pytest.approx(expected, rel=1e-5)
