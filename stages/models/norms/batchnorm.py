"""Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167): over the batch, and over a map."""

from torch import nn

from stages.models.norms import Norm


def make_layer(units: int, placement: str, frn_learned_eps: float) -> nn.Module:
    return nn.BatchNorm1d(units) if placement == "vector" else nn.BatchNorm2d(units)


NORM = Norm("BatchNorm", "#0072B2", make_layer)
