"""The loss over two filter-normalised random directions of the head (Li et al. 2018, arXiv 1712.09913).

FC1 is linear in its weight, so with the block's outputs computed once its output at (alpha, beta) is
Z0 + alpha Z1 + beta Z2: three products for the whole grid. What is left per grid point is norm, ReLU and a 256 x 10
product. Every value equals a plain forward pass with perturbed weights; the model's weights are never written.
"""

import numpy as np
import torch
import torch.nn.functional as F

from stages.core.device import make_pool
from stages.models.transfer_model import TransferModel

# Of FC1's output at a time: a grid point stays in a processor's cache, and has a GPU busy.
ROWS = {"cpu": 500, "cuda": 5000, "mps": 5000}

Direction = dict[str, torch.Tensor]


def random_direction(model: TransferModel, seed: int, which: int) -> Direction:
    """A Gaussian direction over the head's parameters, filter-normalised; `which` (0, 1, ...) picks an independent one.

    Each output neuron's row d of a weight matrix is scaled to the norm of the model's own row w: d <- d |w| / |d|
    (section 4 of the paper). Biases and the norm layer's parameters stay where they are, as in the paper's figures:
    their direction is zero. Keys are state dict names, `head.fc1.weight` and so on.
    """
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, which]).generate_state(1)[0]))
    direction = {}
    for name, parameter in model.head.named_parameters(prefix="head"):
        weight = parameter.detach()
        if weight.ndim < 2:
            direction[name] = torch.zeros_like(weight)
            continue
        d = torch.randn(weight.shape, generator=generator).to(weight)
        direction[name] = d * (weight.norm(dim=1, keepdim=True) / d.norm(dim=1, keepdim=True))
    return direction


def cosine(a: Direction, b: Direction) -> float:
    """Cosine of the angle between two directions; 0 is orthogonal."""
    flat_a, flat_b = (torch.cat([value.flatten() for value in d.values()]).cpu().double() for d in (a, b))
    return F.cosine_similarity(flat_a, flat_b, dim=0).item()


@torch.no_grad()
def surface_of_chunk(
    model: TransferModel,
    x: torch.Tensor,
    y: torch.Tensor,
    alphas: np.ndarray,
    betas: np.ndarray,
    a: Direction,
    b: Direction,
) -> np.ndarray:
    """Summed loss and number of correct predictions of a few images: float64 (2, len(alphas), len(betas))."""
    head = model.head
    block = model.activate_block(x)
    z0 = head.project(block)
    z1, z2 = (F.linear(block, direction["head.fc1.weight"]) for direction in (a, b))
    weights = [head.fc2.weight, a["head.fc2.weight"], b["head.fc2.weight"]]
    sums = np.empty((2, len(alphas), len(betas)))
    for i, alpha in enumerate(alphas.tolist()):
        z_row, w_row = z0 + alpha * z1, weights[0] + alpha * weights[1]
        for j, beta in enumerate(betas.tolist()):
            hidden = head.activate(torch.add(z_row, z2, alpha=beta))
            logits = F.linear(hidden, torch.add(w_row, weights[2], alpha=beta), head.fc2.bias)
            sums[0, i, j] = F.cross_entropy(logits, y, reduction="sum").item()
            sums[1, i, j] = (logits.argmax(1) == y).sum().item()
    return sums


def compute_surface(
    model: TransferModel,
    features: torch.Tensor,
    labels: torch.Tensor,
    alphas: np.ndarray,
    betas: np.ndarray,
    a: Direction,
    b: Direction,
    on_images,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss (nats) and accuracy in [0, 1] at alphas x betas, both float64 (len(alphas), len(betas)).

    `model` is in eval mode; `features` (N, H, W, 320) and `labels` (N,) are the stored ones. `on_images(n)` is told of
    progress. Chunks are spread over the cores and summed in order, so the result does not depend on timing.
    """
    device = next(model.parameters()).device
    positions = features.shape[1] * features.shape[2] if model.head.placement == "spatial" else 1
    size = max(1, ROWS[device.type] // positions)
    cores = torch.get_num_threads() if device.type == "cpu" else 1

    def work(chunk: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
        x, y = (tensor.to(device) for tensor in chunk)
        sums = surface_of_chunk(model, x, y, alphas, betas, a, b)
        on_images(len(y))
        return sums

    chunks = zip(features.split(size), labels.split(size), strict=True)
    threads = 1 if cores > 1 else torch.get_num_threads()
    with make_pool(cores, threads) as pool:
        loss, correct = sum(pool.map(work, chunks))
    return loss / len(labels), correct / len(labels)


def measure_surface(alphas: np.ndarray, betas: np.ndarray, loss: np.ndarray, accuracy: np.ndarray) -> dict[str, float]:
    """Figures of a landscape whose grid has the trained weights at its centre.

    flat_share is the share of grid points whose loss is at most 0.1 nats above the centre's; curvature_alpha and
    curvature_beta are the second differences of the loss at the centre, in nats per unit of direction squared.
    """
    i, j = len(alphas) // 2, len(betas) // 2
    center = loss[i, j]
    return {
        "center_loss": center,
        "center_accuracy": accuracy[i, j],
        "min_loss": loss.min(),
        "max_loss": loss.max(),
        "mean_loss": loss.mean(),
        "flat_share": (loss <= center + 0.1).mean(),
        "curvature_alpha": (loss[i + 1, j] - 2 * center + loss[i - 1, j]) / (alphas[i + 1] - alphas[i]) ** 2,
        "curvature_beta": (loss[i, j + 1] - 2 * center + loss[i, j - 1]) / (betas[j + 1] - betas[j]) ** 2,
    }
