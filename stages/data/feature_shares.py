"""Shares of the training images where these are stored as features."""

from dataclasses import replace

from stages.data.feature_cache import TrainingData
from stages.data.shares import choose_share


def take_share(data: TrainingData, percent: float) -> TrainingData:
    """A stratified `percent` of the training images, the same ones of every view, and all validation images."""
    chosen = choose_share(data.labels, percent)
    return replace(data, views=[view[chosen.to(view.device)] for view in data.views], labels=data.labels[chosen])
