"""Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167): over the batch, and over a map."""

from torch import nn

from stages.models.norms import Norm


def make_layer(units: int, placement: str, frn_learned_eps: float) -> nn.Module:
    return nn.BatchNorm1d(units) if placement == "vector" else nn.BatchNorm2d(units)


def remark(placement: str) -> str:
    return "BatchNorm depends on the batch in training and on running averages in use."


NORM = Norm(
    label="BatchNorm",
    color="#0072B2",
    make_layer=make_layer,
    equation="(x - mu_B) / sqrt(sigma_B^2 + epsilon)",
    statistics="mean and variance over the batch",
    reference="ioffe2015",
    remark=remark,
)
