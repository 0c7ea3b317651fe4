"""Gradients of small batches at fixed weights: their size, direction and noise, and what clipping does to them."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F

from stages.models.dropout import seed_dropout
from stages.models.transfer_model import TransferModel

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def noise_scale(small_square: float, big_square: float, small: int, big: int) -> float | None:
    """The batch size at which gradient noise and gradient are equally large, tr(Sigma) / |G|^2, in images.

    From the mean squared gradient norms at two batch sizes (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1):
    both |G|^2 and tr(Sigma) are estimated without bias. None where the estimate of |G|^2 is not positive: the gradient
    is lost in the noise, and the scale is larger than these batches can tell.
    """
    gradient_square = (big * big_square - small * small_square) / (big - small)
    covariance_trace = (small_square - big_square) / (1 / small - 1 / big)
    return covariance_trace / gradient_square if gradient_square > 0 else None


class LayerMoments:
    """Running moments of one parameter's gradient over equally large batches, in the parameter's type."""

    def __init__(self, parameter: torch.Tensor):
        self.weight_norm = torch.linalg.vector_norm(parameter.detach()).item()
        self.sum = torch.zeros_like(parameter)
        self.square_sum = torch.zeros_like(self.sum)
        self.squared_norms: list[float] = []
        self.products: list[float] = []  # with the gradient of the batch before
        self.previous: torch.Tensor | None = None

    def add(self, gradient: torch.Tensor) -> None:
        self.sum += gradient
        self.square_sum.addcmul_(gradient, gradient)
        self.squared_norms.append(torch.linalg.vector_norm(gradient).item() ** 2)
        if self.previous is not None:
            self.products.append(torch.dot(gradient.flatten(), self.previous.flatten()).item())
        self.previous = gradient

    @property
    def mean_square(self) -> float:
        """Squared norm of the mean gradient: that of one batch made of all."""
        return (self.sum / len(self.squared_norms)).square().sum().item()

    def signal_to_noise(self) -> torch.Tensor:
        """|mean| / standard deviation over batches of every entry, flat; 0 where an entry is always 0.

        An entry without any signal shows about 0.8 / sqrt(batches).
        """
        count = len(self.squared_norms)
        mean = self.sum / count
        variance = (self.square_sum / count - mean.square()).clamp(min=0) * count / (count - 1)
        return torch.where(variance > 0, mean.abs() / variance.sqrt(), torch.zeros_like(mean)).flatten()


def collect_moments(model: TransferModel, batches: Batches, dropout_seed: int) -> dict[str, LayerMoments]:
    """Gradients of the training loss, dropout and batch statistics included, at the weights that `model` has.

    No parameter is changed. Batches are (features, labels), equally large; at least two.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    moments = {name: LayerMoments(p) for name, p in parameters.items()}
    device = next(model.parameters()).device
    model.train()
    seed_dropout(model, dropout_seed, device)
    for x, y in batches:
        loss = F.cross_entropy(model(x.to(device)), y.to(device))
        for moment, gradient in zip(moments.values(), torch.autograd.grad(loss, parameters.values()), strict=True):
            moment.add(gradient)
    return moments


def mean_cosine(layers: list[LayerMoments]) -> float:
    """Mean cosine between the gradients of successive batches, over these layers taken as one vector."""
    products = np.sum([layer.products for layer in layers], axis=0)
    norms = np.sqrt(np.sum([layer.squared_norms for layer in layers], axis=0))
    return float(np.mean(products / (norms[1:] * norms[:-1])))


def describe_moments(layers: list[LayerMoments], batch_size: int) -> dict[str, float | None]:
    """The figures of one layer, or of several taken as one vector."""
    squares = np.sum([layer.squared_norms for layer in layers], axis=0)
    big_square = sum(layer.mean_square for layer in layers)
    ratios = torch.cat([layer.signal_to_noise() for layer in layers])
    weight_norm = float(np.sqrt(sum(layer.weight_norm**2 for layer in layers)))
    norm = float(np.sqrt(squares).mean())
    return {
        "grad_norm": norm,
        "grad_norm_std": float(np.sqrt(squares).std(ddof=1)),
        "weight_norm": weight_norm,
        "grad_to_weight": norm / weight_norm,
        "cosine": mean_cosine(layers),
        "snr_median": ratios.median().item(),
        "snr_above_1": (ratios > 1).cpu().double().mean().item(),
        "noise_scale": noise_scale(squares.mean(), big_square, batch_size, batch_size * len(squares)),
    }


def total_norms(layers: list[LayerMoments]) -> np.ndarray:
    """The norm of each batch's gradient, over these layers taken as one vector; (batches,)."""
    return np.sqrt(np.sum([layer.squared_norms for layer in layers], axis=0))
