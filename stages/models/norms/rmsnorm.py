"""Root mean square normalization (Zhang & Sennrich 2019, arXiv 1910.07467): LayerNorm without the mean."""

from torch import nn

from stages.models.norms import Norm, OverChannels

EPS = 1e-5  # LayerNorm's, where torch would take the type's smallest step


class RMSNorm(OverChannels, nn.RMSNorm):
    """torch's, over the channels of (N, C) or (N, C, H, W)."""


def make_layer(units: int, placement: str, frn_learned_eps: float) -> nn.Module:
    return RMSNorm(units, eps=EPS)


NORM = Norm(
    label="RMSNorm",
    color="#E69F00",
    make_layer=make_layer,
    equation="x / sqrt(nu_L^2 + epsilon)",
    statistics="mean of squares over the units of one sample",
    reference="zhang2019",
)
