"""Curvature of the loss over the head's parameters, with the block below it fixed and its outputs computed once.

The head's parameters are one flat vector w (P,), in the order of `head.parameters()`. `Loss` maps such a vector to the
mean cross-entropy in nats. ReLU and FRN's |eps_l| have kinks: every derivative is that of the smooth piece at w.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from stages.core.device import make_pool
from stages.measure.loss_surface import Direction
from stages.models.heads import Head

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # of torch.jit, which a dependency of curvlinops still uses
    from curvlinops import HessianLinearOperator, lanczos_approximate_spectrum

Loss = Callable[[torch.Tensor], torch.Tensor]

TOLERANCE = 1e-2  # of eigsh: |H v - lambda v| <= TOLERANCE |lambda|; lambda's own error is of the order of its square
GRID_TOLERANCE = 1e-1
CONVEX = 0.1  # a point counts as convex where lambda_min >= -CONVEX lambda_max
BOX_STEPS = 5


def spread(jobs: Sequence[Callable[[], Any]], device: torch.device) -> list:
    """The results of all jobs, in order; as many run at a time as there are cores (CUDA: one), each on one thread.

    One thread also for the BLAS below eigsh: so rounding, and with it the result, does not depend on the cores.
    """
    cores = torch.get_num_threads() if device.type == "cpu" else 1
    with threadpool_limits(1, user_api="blas"), make_pool(cores, 1) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def make_loss(head: Head, block: torch.Tensor, labels: torch.Tensor) -> Loss:
    """The loss of `head` as a function of its parameters; BatchNorm keeps the statistics that `head` has.

    On a copy of `head`: functional_call swaps a module's parameters while it runs, which other threads would see.
    """
    head = copy.deepcopy(head)
    shapes = {name: p.shape for name, p in head.named_parameters()}

    def loss(w: torch.Tensor) -> torch.Tensor:
        parts = w.split([shape.numel() for shape in shapes.values()])
        named = {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}
        return F.cross_entropy(functional_call(head, named, (block,)), labels)

    return loss


def weights_of(head: Head) -> torch.Tensor:
    """w, detached."""
    return parameters_to_vector(head.parameters()).detach()


def flatten(direction: Direction) -> torch.Tensor:
    """A direction of the landscape as a vector (P,)."""
    return torch.cat([value.flatten() for value in direction.values()])


def move_head(head: Head, step: torch.Tensor) -> Head:
    """A copy of `head` at w + step."""
    moved = copy.deepcopy(head)
    vector_to_parameters(weights_of(head) + step, moved.parameters())
    return moved


class HeadHessian(HessianLinearOperator):
    """Hessian of the mean cross-entropy over the head's parameters, (P, P), as curvlinops' linear operator.

    H v = d(g . v)/dw (Pearlmutter 1994) from one retained graph of the gradient g. curvlinops' own product, jvp over
    jacrev, does the same three times slower, and for LayerNorm torch 2.15 gets it wrong: its batching rule for
    native_layer_norm_backward, which jacrev uses, loses part of the derivative (pytorch/functorch issue 534).
    """

    def __init__(self, head: Head, block: torch.Tensor, labels: torch.Tensor):
        parameters, criterion = list(head.parameters()), nn.CrossEntropyLoss()
        super().__init__(
            head, criterion, parameters, [(block, labels)], check_deterministic=False, num_data=len(labels)
        )
        self.gradient = torch.autograd.grad(criterion(head(block), labels), parameters, create_graph=True)

    def _matmat_batch(self, X: torch.Tensor, y: torch.Tensor, M: list[torch.Tensor]) -> list[torch.Tensor]:
        columns = zip(*(entry.unbind(-1) for entry in M), strict=True)
        products = [torch.autograd.grad(self.gradient, self._params, v, retain_graph=True) for v in columns]
        return [torch.stack(parts, -1) for parts in zip(*products, strict=True)]


def find_eigenpairs(hessian, count: int, seed: int, tolerance: float = TOLERANCE) -> tuple[np.ndarray, torch.Tensor]:
    """The `count` lowest and `count` highest eigenvalues, ascending (2 count,), and their unit vectors (P, 2 count).

    By scipy's eigsh (ARPACK's implicitly restarted Lanczos) from a seeded start vector.
    """
    start = np.random.default_rng(seed).standard_normal(hessian.shape[0])
    values, vectors = eigsh(hessian.to_scipy(), 2 * count, which="BE", v0=start, tol=tolerance)
    order = np.argsort(values)
    return values[order], torch.from_numpy(vectors[:, order]).to(hessian.device, hessian.dtype)


def estimate_trace(hessian, values: np.ndarray, vectors: torch.Tensor, probes: int, seed: int) -> tuple[float, float]:
    """Trace and its standard error, by Hutchinson's estimator on what the known eigenpairs leave over.

    tr H = sum of lambda_i + E[z (H - sum of lambda_i q_i q_i^T) z], z of random signs: Hutch++ (Meyer et al. 2021,
    arXiv 2010.09649) with eigenvectors as its basis. curvlinops' estimators return no standard error.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (hessian.shape[0], probes), generator=generator).to(vectors) * 2 - 1
    known = torch.from_numpy(values).to(vectors) @ (vectors.T @ signs).square()
    samples = ((signs * (hessian @ signs)).sum(0) - known).cpu().double().numpy()
    return float(values.sum() + samples.mean()), float(samples.std(ddof=1) / np.sqrt(probes))


def estimate_density(
    hessian, lowest: float, highest: float, steps: int, repeats: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and their density, (1024,) each, integrating to 1: stochastic Lanczos quadrature by curvlinops.

    `lowest` and `highest` bound the spectrum; every quadrature node is widened to a Gaussian of about a hundredth of
    that range (Papyan 2020, JMLR 21:252, algorithm 2). Draws from torch's global generator, which is seeded and then
    restored: no other thread may draw from it meanwhile.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = lanczos_approximate_spectrum(hessian, steps, num_repeats=repeats, boundaries=(lowest, highest))
    values, density = (tensor.cpu().double().numpy() for tensor in found)
    return values, density


def curve_along(hessian, direction: torch.Tensor) -> float:
    """Second derivative of the loss along d at its centre, d^T H d: nats per squared unit of d."""
    return torch.dot(direction, hessian @ direction).item()


def extreme_eigenvalues(head: Head, block: torch.Tensor, labels: torch.Tensor, seed: int) -> np.ndarray:
    """lambda_min and lambda_max at the weights of `head`, roughly: (2,)."""
    return find_eigenpairs(HeadHessian(head, block, labels), 1, seed, GRID_TOLERANCE)[0]


def ratio_of(lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """|lambda_min / lambda_max|, near 0 where the loss is nearly convex (Li et al. 2018, arXiv 1712.09913)."""
    return np.abs(lowest / highest)


def convex_share(lowest: np.ndarray, highest: np.ndarray) -> float:
    """Share of points that are convex up to a tenth: lambda_min >= -0.1 lambda_max.

    A head with ReLU has negative eigenvalues nearly everywhere; Li et al. likewise ask how small they are.
    """
    return float(np.mean(lowest >= -CONVEX * highest))


def value_and_gradient(loss: Loss, w: torch.Tensor) -> tuple[float, torch.Tensor]:
    w = w.detach().requires_grad_()
    value = loss(w)
    return value.item(), torch.autograd.grad(value, w)[0]


def ball_sharpness(loss: Loss, w: torch.Tensor, radius: float) -> float:
    """L(w + radius g / |g|) - L(w) in nats, g the gradient: how far the loss rises in a ball, to first order.

    The inner step of SAM (Foret et al. 2021, arXiv 2010.01412, equation 2 with p = 2).
    """
    value, gradient = value_and_gradient(loss, w)
    with torch.no_grad():
        return loss(w + radius * gradient / gradient.norm()).item() - value


def box_sharpness(loss: Loss, w: torch.Tensor, radius: float) -> float:
    """100 (max L(w + d) - L(w)) / (1 + L(w)) over the box |d_i| <= radius (|w_i| + 1): per cent.

    Keskar et al. 2017 (arXiv 1609.04836, metric 2.1 with A the identity). From d = 0 to the corner that is best for the
    gradient at d, again and again: where L is convex no such step goes down. The best of them is a lower bound of the
    maximum, as is what the paper's ten iterations of L-BFGS-B find: within a tenth of each other on trained heads, and
    L-BFGS-B takes fifteen times as long.
    """
    bounds = radius * (w.abs() + 1)
    start, gradient = value_and_gradient(loss, w)
    values = [start]
    for _ in range(BOX_STEPS):
        value, gradient = value_and_gradient(loss, w + bounds * gradient.sign())
        values.append(value)
    return 100 * (max(values) - start) / (1 + start)


@torch.no_grad()
def slice_loss(loss: Loss, w: torch.Tensor, direction: torch.Tensor, steps: np.ndarray) -> np.ndarray:
    """L(w + t d) in nats at every t of `steps`."""
    return np.array([loss(w + t * direction).item() for t in steps.tolist()])
