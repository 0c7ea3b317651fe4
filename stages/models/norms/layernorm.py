"""Layer normalization (Ba et al. 2016, arXiv 1607.06450): over units, at each position of a map."""

from torch import nn

from stages.models.norms import Norm, OverChannels


class LayerNorm(OverChannels, nn.LayerNorm):
    """torch's, over the channels of (N, C) or (N, C, H, W)."""


def make_layer(units: int, placement: str, frn_learned_eps: float) -> nn.Module:
    return LayerNorm(units)


NORM = Norm(
    label="LayerNorm",
    color="#D55E00",
    make_layer=make_layer,
    equation="(x - mu_L) / sqrt(sigma_L^2 + epsilon)",
    statistics="over the units of one sample",
    reference="ba2016",
)
