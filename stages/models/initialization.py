"""Initial weights from an explicit generator, where torch's own constructors draw from the global one."""

import math

import torch
from torch import nn


def initialize_like_torch(model: nn.Module, seed: int) -> None:
    """Draw all Conv2d and Linear layers anew as torch does by default, in the order in which they were registered.

    Weights and biases are uniform within 1 / sqrt(fan_in) (He et al. 2015, arXiv 1502.01852, with a = sqrt(5)).
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            if layer.bias is not None:
                bound = 1 / math.sqrt(layer.weight[0].numel())
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def initialize_like_torchvision(model: nn.Module, seed: int) -> None:
    """Draw all Conv2d and Linear layers anew as torchvision does in MobileNetV2; all biases are zero.

    Convolutions are normal with variance 2 / fan_out (He et al. 2015), linear layers with a deviation of 0.01.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", generator=generator)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01, generator=generator)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
