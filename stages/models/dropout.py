"""Dropout whose random numbers depend on a seed alone, whatever else draws from torch's generator."""

import torch
from torch import nn


class Dropout(nn.Module):
    """nn.Dropout with a generator of its own, so that runs that share a process stay reproducible."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.generator = torch.Generator()

    def seed(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


def seed_dropout(model: nn.Module, seed: int, device: torch.device) -> None:
    """Seed every Dropout of a model, each from the seed and its place: the first from `seed` itself."""
    for place, module in enumerate(m for m in model.modules() if isinstance(m, Dropout)):
        module.seed(seed + place, device)
