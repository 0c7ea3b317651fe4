"""No norm: what the others are to be measured against."""

from torch import nn

from stages.models.norms import Norm


def make_layer(units: int, placement: str, frn_learned_eps: float) -> nn.Module:
    return nn.Identity()


NORM = Norm(
    label="no norm",
    color="#777777",
    make_layer=make_layer,
    equation="x",
    statistics="nothing",
    reference=None,
)
