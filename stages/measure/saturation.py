"""How many units of a vector FRN head no longer react to their input."""

import torch

from stages.models.norms.frn import FilterResponseNorm
from stages.models.transfer_model import TransferModel
from stages.training.evaluation import BATCH_SIZE

SATURATED = 0.99  # of the largest magnitude that x / sqrt(x^2 + eps) can reach, 1


@torch.no_grad()
def saturated_share(model: TransferModel, features: torch.Tensor) -> float | None:
    """Share of (image, unit) pairs where |x| / sqrt(x^2 + eps) > 0.99: there FRN's output is nearly the sign of x.

    None for other norms, and for FRN on a map, where the extent is not a single element.
    """
    norm = model.eval().head.norm
    if not isinstance(norm, FilterResponseNorm) or model.head.placement != "vector":
        return None
    eps = norm.eps + (0 if norm.eps_l is None else norm.eps_l.abs())
    device, counts = norm.weight.device, []
    for x in features.split(BATCH_SIZE):
        hidden = model.head.project(model.activate_block(x.to(device)))
        counts.append((hidden.abs() > SATURATED * torch.sqrt(hidden.square() + eps)).cpu().double().mean(1))
    return torch.cat(counts).mean().item()
