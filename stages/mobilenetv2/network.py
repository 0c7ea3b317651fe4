"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) with its modifications as settings, to train from random weights.

Without modifications it is torchvision's model, weight for weight. Strides, which have to fit the image size, are a
setting too, and one that no variant changes: the published comparison of such variants gave its wide network another
stride than the rest (reduce_16, not reduce_32), so that the two effects cannot be told apart there.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import SqueezeExcitation

from stages.core.tables import look_up
from stages.models.dropout import Dropout
from stages.models.initialization import initialize_like_torchvision

# Expansion t, channels c and blocks n of each stage (table 2 of the paper).
STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
STEM_CHANNELS, LAST_CHANNELS = 32, 1280

# Strides of the stem and of the first block of each stage, by how many times smaller the last map is.
STRIDES = {
    "reduce_32": (2, 1, 2, 2, 2, 1, 2, 1),  # the paper's, for 224 pixels (7x7 at the end): 1x1 at 32 pixels
    "reduce_16": (1, 1, 2, 2, 2, 1, 2, 1),  # stem at stride 1: 2x2 at 32 pixels
    "reduce_8": (1, 1, 1, 2, 2, 1, 2, 1),  # stem and the stage of 24 channels at stride 1: 4x4 at 32 pixels
}
ACTIVATIONS = {
    "relu6": partial(nn.ReLU6, inplace=True),
    "leaky_relu": partial(nn.LeakyReLU, inplace=True),  # slope 0.01 below zero
    "silu": partial(nn.SiLU, inplace=True),
    "hardswish": partial(nn.Hardswish, inplace=True),
    "hardsigmoid": partial(nn.Hardsigmoid, inplace=True),
    "gelu": nn.GELU,
}


@dataclass(frozen=True)
class MobileNetV2Settings:
    """What can be varied; the defaults are the paper's network with strides for 32x32 images and ten classes."""

    classes: int = 10
    strides: str = "reduce_8"  # a key of STRIDES
    width: float = 1.0  # factor on all numbers of channels, rounded to multiples of 8; the last layer only grows
    expansion: int = 6  # t of every stage but the first
    kernel_size: int = 3  # of the depthwise convolutions, odd
    activation: str = "relu6"  # a key of ACTIVATIONS
    squeeze: int | None = None  # None | squeeze-and-excitation with this reduction of the expanded channels
    dropout: float = 0.2  # before the classifier

    def __post_init__(self):
        look_up(STRIDES, "strides", self.strides)
        look_up(ACTIVATIONS, "activation", self.activation)


def round_channels(channels: float) -> int:
    """The nearest multiple of 8, or the next one where that would be less than 90% of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


class PaddedConv2d(nn.Conv2d):
    """nn.Conv2d that pads a map smaller than its kernel first: the same output, by another way through the library.

    On CPUs a depthwise convolution's weight gradient takes up to 40 times as long where padding is left to oneDNN and
    the map, 1x1 or 2x2 at the end of the network, is smaller than the kernel.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if min(x.shape[2:]) >= self.kernel_size[0]:
            return super().forward(x)
        padded = F.pad(x, [self.padding[0]] * 4)
        return F.conv2d(padded, self.weight, self.bias, self.stride, dilation=self.dilation, groups=self.groups)


class ConvBNActivation(nn.Sequential):
    """Convolution that keeps the size but for its stride, without bias; batch normalization; activation."""

    def __init__(self, inputs: int, outputs: int, activation: str, kernel_size: int = 3, stride: int = 1, groups=1):
        super().__init__(
            PaddedConv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            ACTIVATIONS[activation](),
        )


class InvertedResidual(nn.Module):
    """1x1 expansion (unless t is 1), depthwise convolution, 1x1 projection; plus the input where shapes agree.

    Squeeze-and-excitation acts on the expanded channels after the depthwise convolution, as in MobileNetV3
    (arXiv 1905.02244); with sigmoid, and ReLU between its two layers.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, settings: MobileNetV2Settings):
        super().__init__()
        hidden = inputs * expansion
        activation, kernel_size = settings.activation, settings.kernel_size
        layers = [] if expansion == 1 else [ConvBNActivation(inputs, hidden, activation, kernel_size=1)]
        layers.append(ConvBNActivation(hidden, hidden, activation, kernel_size, stride, groups=hidden))
        if settings.squeeze:
            layers.append(SqueezeExcitation(hidden, max(1, hidden // settings.squeeze)))
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.adds_input else self.conv(x)


def make_features(settings: MobileNetV2Settings) -> nn.Sequential:
    """Stem, inverted residuals and the last 1x1 convolution, numbered like torchvision's `features`."""
    activation = settings.activation
    stem_stride, *stage_strides = STRIDES[settings.strides]
    channels = round_channels(STEM_CHANNELS * settings.width)
    layers = [ConvBNActivation(3, channels, activation, stride=stem_stride)]
    for (t, c, n), stage_stride in zip(STAGES, stage_strides, strict=True):
        outputs = round_channels(c * settings.width)
        expansion = 1 if t == 1 else settings.expansion
        for stride in (stage_stride, *[1] * (n - 1)):
            layers.append(InvertedResidual(channels, outputs, stride, expansion, settings))
            channels = outputs
    last = round_channels(LAST_CHANNELS * max(1.0, settings.width))
    return nn.Sequential(*layers, ConvBNActivation(channels, last, activation, kernel_size=1))


class MobileNetV2(nn.Module):
    """(N, 3, H, W) -> logits (N, classes); state dict names are torchvision's."""

    def __init__(self, settings: MobileNetV2Settings):
        super().__init__()
        self.features = make_features(settings)
        last = self.features[-1][0].out_channels
        self.classifier = nn.Sequential(Dropout(settings.dropout), nn.Linear(last, settings.classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def make_mobilenetv2(*, seed: int, **changes) -> MobileNetV2:
    """The network with these of MobileNetV2Settings, initialised from `seed` as torchvision does."""
    model = MobileNetV2(MobileNetV2Settings(**changes))
    initialize_like_torchvision(model, seed)
    return model
