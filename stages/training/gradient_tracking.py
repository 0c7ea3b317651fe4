"""Gradient norms per layer, recorded before clipping, and the clipping itself."""

from types import TracebackType

import numpy as np
import torch
from torch import nn

# Edges of the histogram of |g|: half decades from 1e-12 to 10, with one open bin at either end.
EDGES = np.logspace(-12, 1, 27)
BINS = [f"share_from_{edge:.1e}" for edge in [0.0, *EDGES]]


def clip_gradients(model: nn.Module, threshold: float | None) -> None:
    """Scale all gradients so that their total L2 norm is at most `threshold`; None leaves them as they are."""
    if threshold is not None:
        nn.utils.clip_grad_norm_(model.parameters(), threshold)


def find_clip_factors(norms: np.ndarray, threshold: float | None) -> np.ndarray:
    """The factor in (0, 1] that clipping at `threshold` applies to gradients of these total norms."""
    return np.ones_like(norms) if threshold is None else threshold / np.maximum(norms, threshold)


def magnitude_shares(grad: torch.Tensor) -> np.ndarray:
    """Share of the entries of `grad` whose magnitude falls into each of BINS; float64 (28,), summing to 1."""
    magnitudes = grad.abs().flatten().cpu().numpy()
    return np.bincount(np.searchsorted(EDGES, magnitudes, side="right"), minlength=len(BINS)) / len(magnitudes)


class GradientTracker:
    """Norms of parameter gradients (not of activations) over the steps of an epoch, taken before clipping.

        with GradientTracker(model) as tracker:
            for each step:
                loss.backward()
                tracker.record()
                clip_gradients(model, threshold)

    On leaving the block, in NumPy: `layer_norms` (steps, layers) and `total_norms` (steps,); `histograms`,
    layer -> shares per bin at the first step; and, (layers,) each, the `weight_norms` before the first step, the
    `update_norms` of what that step changed, and the `cosines` between its gradients and the second step's (NaN for an
    epoch of one step, or a zero gradient). Nothing but the histograms is read back from the device before.
    """

    def __init__(self, model: nn.Module):
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.steps: list[torch.Tensor] = []
        self.first: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # weight and gradient at the first step
        self.movement = torch.full((3, len(self.parameters)), torch.nan)
        self.histograms: dict[str, np.ndarray] = {}

    def __enter__(self) -> "GradientTracker":
        return self

    def record(self) -> None:
        """Call once per step, between `backward` and clipping."""
        grads = {name: p.grad for name, p in self.parameters.items()}
        if len(self.steps) == 0:
            self.histograms = {name: magnitude_shares(grad) for name, grad in grads.items()}
            self.first = {name: (p.detach().clone(), p.grad.clone()) for name, p in self.parameters.items()}
        if len(self.steps) == 1:
            self.movement = torch.stack([self.measure_movement(name) for name in grads], dim=1)
            self.first.clear()
        self.steps.append(torch.stack([torch.linalg.vector_norm(grad) for grad in grads.values()]))

    def measure_movement(self, name: str) -> torch.Tensor:
        """Norm of the weight before the first step, norm of that step, cosine of the two steps' gradients; (3,)."""
        (weight, grad), parameter = self.first[name], self.parameters[name]
        norms = torch.linalg.vector_norm(grad) * torch.linalg.vector_norm(parameter.grad)
        cosine = torch.sum(grad * parameter.grad) / norms
        step = torch.linalg.vector_norm(parameter.detach() - weight)
        return torch.stack([torch.linalg.vector_norm(weight), step, cosine])

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        steps = torch.stack(self.steps) if self.steps else torch.zeros(0, len(self.parameters))
        self.layer_norms = steps.cpu().double().numpy()
        self.total_norms = np.sqrt((self.layer_norms**2).sum(1))
        self.weight_norms, self.update_norms, self.cosines = self.movement.cpu().double().numpy()
