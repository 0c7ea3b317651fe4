"""The adaptation heads that are compared: global average pooling, FC(256), norm, ReLU, Dropout, FC(10).

All share one forward pass and differ in `norm` alone. With placement `vector` the map is pooled first and the
norm sees (N, 256); with `spatial` FC1 acts as a 1x1 convolution and norm and ReLU act on the map (N, H, W, 256), which
is then pooled, so that FRN has an extent to average over.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from stages.core.choices import CLASSES, PLACEMENTS
from stages.models.dropout import Dropout
from stages.models.norms import load_norm

HIDDEN = 256


class Head(nn.Module):
    """(N, H, W, in_features), or already pooled (N, in_features) with placement `vector`, -> logits (N, 10)."""

    def __init__(self, in_features: int, norm: nn.Module, dropout_rate: float = 0.5, placement: str = "vector"):
        super().__init__()
        if placement not in PLACEMENTS:
            raise ValueError(f"placement is {placement!r}; it must be one of {', '.join(PLACEMENTS)}")
        self.placement = placement
        self.fc1 = nn.Linear(in_features, HIDDEN)
        self.norm = norm
        self.dropout = Dropout(dropout_rate)
        self.fc2 = nn.Linear(HIDDEN, CLASSES)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """FC1, its product in the type of `x` and its result in FC1's own type: (..., in_features) -> (..., 256)."""
        return F.linear(x, self.fc1.weight.to(x.dtype)).to(self.fc1.weight.dtype) + self.fc1.bias

    def normalize(self, hidden: torch.Tensor) -> torch.Tensor:
        """`norm`, which wants channels first, over channels-last (N, 256) or (N, H, W, 256)."""
        return self.norm(hidden.movedim(-1, 1)).movedim(1, -1)

    def activate(self, hidden: torch.Tensor) -> torch.Tensor:
        """From FC1's output to FC2's input, without dropout: norm, ReLU and, on a map, pooling."""
        active = self.normalize(hidden).relu()
        return active if active.ndim == 2 else active.mean((1, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.placement == "vector" and x.ndim == 4:
            x = x.mean((1, 2))
        return self.fc2(self.dropout(self.activate(self.project(x))))


def make_head(
    norm: str,
    in_features: int,
    *,
    seed: int,
    dropout_rate: float = 0.5,
    placement: str = "vector",
    frn_learned_eps: float = 1e-4,
) -> Head:
    """A head with the norm of that name, its two FC layers initialised from `seed` alone: equal for all of them.

    Raises ValueError for an unknown norm or placement.
    """
    head = Head(in_features, load_norm(norm).make_layer(HIDDEN, placement, frn_learned_eps), dropout_rate, placement)
    generator = torch.Generator().manual_seed(seed)
    for layer in (head.fc1, head.fc2):
        bound = 1 / math.sqrt(layer.in_features)  # nn.Linear's own initialisation (He et al. 2015, a = sqrt(5))
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return head
