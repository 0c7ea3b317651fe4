"""A network that trains from stored images."""

from collections.abc import Sequence

import torch
from torch import nn


class ImageClassifier(nn.Module):
    """A network with the way from stored pixels to its input: uint8 (N, H, W, 3) -> float32 logits (N, 10).

    `mean` and `std` are per channel, of pixels in [0, 1], as data/stats.json has them. They are part of the state dict,
    since weights are of use only with them. Products are computed in `product_dtype`; parameters stay float32.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        product_dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.product_dtype = product_dtype

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), channels last in memory."""
        return ((images.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.normalize(images)
        with torch.autocast(x.device.type, self.product_dtype, enabled=self.product_dtype != torch.float32):
            return self.network(x).float()
