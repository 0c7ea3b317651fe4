"""Shares of the training images, the same for whatever trains on them."""

from dataclasses import replace

import numpy as np
import torch

from stages.data.cifar10 import stratified_take
from stages.data.feature_cache import TrainingData


def choose_share(labels: torch.Tensor, percent: float) -> torch.Tensor:
    """Positions of a stratified `percent` of int64 labels (N,), which depend on N and `percent` alone; sorted."""
    count = round(len(labels) * percent / 100)
    if count == len(labels):
        return torch.arange(count)
    return torch.from_numpy(stratified_take(labels.numpy(), count, np.random.default_rng(count)))


def take_share(data: TrainingData, percent: float) -> TrainingData:
    """A stratified `percent` of the training images, the same ones of every view, and all validation images."""
    chosen = choose_share(data.labels, percent)
    return replace(data, views=[view[chosen.to(view.device)] for view in data.views], labels=data.labels[chosen])
