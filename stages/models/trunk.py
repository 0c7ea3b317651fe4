"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) and its frozen part, the trunk.

The trunk is `features[0:18]` of torchvision's model, always in eval mode; `features.18` trains with the head. Where
more is to train, the trunk ends earlier (`backbone.trainable_from`).
"""

import torch
import torch.nn.functional as F
from torch import nn

from stages.core.choices import LAST

PRECISE_END = 2  # features[0:2] are always computed in float32: most of the error of bfloat16 would arise there
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in [0, 1]

StateDict = dict[str, torch.Tensor]


class TensorFlowSameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's 'same' padding: the odd pixel goes to the bottom and the right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def make_features(padding: str) -> nn.Sequential:
    """torchvision's `mobilenet_v2().features`, randomly initialised, with the given padding convention."""
    from torchvision.models import mobilenet_v2  # here, because it costs as long to import as torch itself

    features = mobilenet_v2(weights=None).features
    if padding == "tensorflow_same":
        for module in features.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.__class__ = TensorFlowSameConv2d
    return features


def standardize_like_imagenet(
    data_mean: list[float], data_std: list[float], mean: list[float], std: list[float]
) -> tuple[list[float], list[float]]:
    """The (mean, std) that gives a network the data standardised with its own statistics, per channel.

    (x - data_mean) / data_std takes the place of ImageNet's (x - 0.485..) / 0.229.., and is then expressed in the input
    convention (`mean`, `std`) of the weights. For torchvision's weights, whose convention is ImageNet's, the result is
    (data_mean, data_std) itself; weights that want [-1, 1] get the same picture in their own range.
    """
    rows = zip(data_mean, data_std, mean, std, IMAGENET_MEAN, IMAGENET_STD, strict=True)
    pairs = [(m - s * (im - wm) / isd, s * ws / isd) for m, s, wm, ws, im, isd in rows]
    return [m for m, _ in pairs], [s for _, s in pairs]


class Trunk(nn.Module):
    """Resize, normalise and `features[0:end]`, frozen: uint8 (N, 32, 32, 3) -> (N, H, W, C).

    (H, W, C) is (size / 32, size / 32, 320) where the trunk ends at features.18.
    """

    def __init__(
        self, state: StateDict, image_size: int, mean: list[float], std: list[float], padding: str, end: int = LAST
    ):
        super().__init__()
        features = make_features(padding)
        features.load_state_dict(state)
        self.features = features[:end].to(memory_format=torch.channels_last)
        self.image_size = image_size
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Trunk":
        """Stays in eval mode whatever it is asked: frozen BatchNorm layers must not drift."""
        return super().train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.permute(0, 3, 1, 2).float()
        size = (self.image_size, self.image_size)
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        with torch.autocast(x.device.type, enabled=False):
            x = self.features[:PRECISE_END]((x - self.mean) / self.std)
        return self.features[PRECISE_END:](x).permute(0, 2, 3, 1)
