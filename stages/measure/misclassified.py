"""Which test images the models get wrong, and on which of them the configurations disagree."""

import numpy as np
import pandas as pd

from stages.data.cifar10 import CLASS_NAMES
from stages.training.predictions import Predictions


def accuracy_per_class(predictions: dict[str, Predictions]) -> pd.DataFrame:
    """Columns configuration, class, accuracy (in [0, 1], over all seeds)."""
    return pd.DataFrame(
        {"configuration": key, "class": name, "accuracy": found.confusion()[index, index]}
        for key, found in predictions.items()
        for index, name in enumerate(CLASS_NAMES)
    )


def share_correct(predictions: dict[str, Predictions]) -> np.ndarray:
    """Share of each configuration's seeds that classify each test image correctly, float64 (configurations, N)."""
    return np.stack([found.correct.mean(0) for found in predictions.values()])


def hardest_images(predictions: dict[str, Predictions]) -> np.ndarray:
    """Positions of the test images that every model gets wrong, those with the least probability of the truth first."""
    labels = next(iter(predictions.values())).labels
    truth = np.mean(
        [found.probabilities[:, np.arange(len(labels)), labels].mean(0) for found in predictions.values()], 0
    )
    wrong = np.flatnonzero(share_correct(predictions).max(0) == 0)
    return wrong[np.argsort(truth[wrong], kind="stable")]


def contested_images(predictions: dict[str, Predictions]) -> np.ndarray:
    """Positions of the images that all seeds of one configuration get right and all seeds of another get wrong."""
    share = share_correct(predictions)
    return np.flatnonzero((share.max(0) == 1) & (share.min(0) == 0))


def summarize_errors(predictions: dict[str, Predictions]) -> dict[str, float]:
    """Shares of the test images, and each configuration's hardest class."""
    share = share_correct(predictions)
    table = accuracy_per_class(predictions)
    worst = table.loc[table.groupby("configuration", sort=False)["accuracy"].idxmin()]
    return {
        "always_right": float((share.min(0) == 1).mean()),
        "always_wrong": float((share.max(0) == 0).mean()),
        "contested": len(contested_images(predictions)) / share.shape[1],
        "hardest_class_accuracy_min": float(worst["accuracy"].min()),
        "hardest_class_accuracy_max": float(worst["accuracy"].max()),
    } | {f"hardest_class_{key}": name for key, name in zip(worst["configuration"], worst["class"], strict=True)}
