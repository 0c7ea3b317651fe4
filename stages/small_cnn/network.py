"""A fully convolutional network of fewer than 50,000 parameters for 32x32 images, with a norm of one's choice.

The layers are those of the published network with 47,876 parameters: 47,404 weights of convolutions without biases, and
scale and shift of 236 normalised channels, those of every 3x3 convolution and of the 1x1 to 32. The published code
normalises after dropout; here the order is convolution, norm, ReLU, dropout, since a norm after dropout sees another
variance in training than in evaluation (Li et al. 2019, arXiv 1801.05134).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from stages.core.tables import look_up
from stages.models.dropout import Dropout
from stages.models.initialization import initialize_like_torch

COLORS = 3


class Layer(NamedTuple):
    """A convolution, and what follows it in this order: norm and ReLU, dropout, an earlier output added, pooling."""

    name: str
    channels: int
    kernel_size: int
    normalized: bool = True  # with norm and ReLU
    dropout: float = 0.0
    added: str | None = None  # the layer whose output is added
    pool: str | None = None


LAYERS = (
    Layer("C1", 20, 3),
    Layer("C2", 20, 3),
    Layer("C3", 20, 3, dropout=0.05, added="C1"),
    Layer("T4", 32, 1, dropout=0.1, pool="max"),
    Layer("C5", 32, 3),
    Layer("C6", 32, 3, dropout=0.05),
    Layer("C7", 32, 3, dropout=0.05, pool="max"),
    Layer("T8", 24, 1, normalized=False),
    Layer("C9", 24, 3, dropout=0.05),
    Layer("C10", 24, 3, pool="average"),
    Layer("C11", 10, 1, normalized=False),
)
POOLS = {"max": partial(nn.MaxPool2d, 2), "average": partial(nn.AdaptiveAvgPool2d, 1)}
GROUPS = {20: 5, 24: 8, 32: 8}  # of group normalization, by number of channels


def make_group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS[channels], channels)


def make_layer_norm(channels: int) -> nn.GroupNorm:
    """Layer normalization over (C, H, W) of each image, which is group normalization with one group.

    Without scale and shift: one of each for every element would be more parameters than the network has. The published
    variant has 47,452 parameters where this one has 47,404: one of its layers of 24 channels kept another norm's.
    """
    return nn.GroupNorm(1, channels, affine=False)


NORM_LAYERS = {"batchnorm": nn.BatchNorm2d, "groupnorm": make_group_norm, "layernorm": make_layer_norm}


class SmallCNN(nn.Module):
    """The network of LAYERS: (N, 3, 32, 32) -> logits (N, 10). `make_norm` takes a number of channels."""

    def __init__(self, make_norm: Callable[[int], nn.Module]):
        super().__init__()
        self.blocks, self.pools = nn.ModuleDict(), nn.ModuleDict()
        inputs = COLORS
        for layer in LAYERS:
            self.blocks[layer.name] = make_block(inputs, layer, make_norm)
            if layer.pool:
                self.pools[layer.name] = POOLS[layer.pool]()
            inputs = layer.channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = {}
        for layer in LAYERS:
            x = self.blocks[layer.name](x)
            if layer.added:
                x = x + outputs[layer.added]
            if layer.pool:
                x = self.pools[layer.name](x)
            outputs[layer.name] = x
        return x.flatten(1)


def make_block(inputs: int, layer: Layer, make_norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """Convolution without bias and with same padding, then, if `layer` has them, norm, ReLU and dropout."""
    block = nn.Sequential(nn.Conv2d(inputs, layer.channels, layer.kernel_size, padding="same", bias=False))
    if layer.normalized:
        block.extend([make_norm(layer.channels), nn.ReLU()])
    if layer.dropout:
        block.append(Dropout(layer.dropout))
    return block


def make_small_cnn(*, seed: int, norm: str = "batchnorm") -> SmallCNN:
    """The network with a norm from NORM_LAYERS, its convolutions initialised from `seed` alone: equal for all norms."""
    model = SmallCNN(look_up(NORM_LAYERS, "norm", norm))
    initialize_like_torch(model, seed)
    return model
