"""Group normalization (Wu & He 2018, arXiv 1803.08494): over groups of units of an image, and positions of its map."""

from torch import nn

from stages.models.norms import Norm

GROUPS = 32  # the paper's: eight units each, of 256


def make_layer(units: int, placement: str, frn_learned_eps: float) -> nn.Module:
    return nn.GroupNorm(GROUPS, units)


NORM = Norm(
    label="GroupNorm",
    color="#CC79A7",
    make_layer=make_layer,
    equation="(x - mu_G) / sqrt(sigma_G^2 + epsilon)",
    statistics="over a group of units of one sample",
    reference="wu2018",
)
