"""Shares of the training images, the same for whatever trains on them."""

import numpy as np
import torch

from stages.data.cifar10 import stratified_take


def choose_share(labels: torch.Tensor, percent: float) -> torch.Tensor:
    """Positions of a stratified `percent` of int64 labels (N,), which depend on N and `percent` alone; sorted."""
    count = round(len(labels) * percent / 100)
    if count == len(labels):
        return torch.arange(count)
    return torch.from_numpy(stratified_take(labels.numpy(), count, np.random.default_rng(count)))
