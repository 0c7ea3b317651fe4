"""Transfer against training from scratch, over the number of training images."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from stages.reporting.captions import add_caption
from stages.reporting.plotting import SEQUENCE
from stages.reporting.results import test_accuracies

WAYS = {"transfer": ("frozen MobileNetV2, plain head", SEQUENCE[0]), "scratch": ("CNN from scratch", SEQUENCE[1])}
LEVELS = (60, 70, 80)  # per cent of validation accuracy, to be reached soon


@dataclass(frozen=True)
class Comparison:
    """Of either way, `transfer` and `scratch`: metrics by share of the images in per cent, curves of the largest."""

    metrics: dict[str, dict[float, dict]]
    curves: dict[str, pd.DataFrame]
    images: int  # training images at 100%


def draw_shares(comparison: Comparison, caption: str) -> Figure:
    """Test accuracy and generalization gap against the number of training images; a point per seed, a line per mean."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9))
    for way, (label, color) in WAYS.items():
        own = comparison.metrics[way]
        counts = [comparison.images * percent / 100 for percent in own]
        accuracies = [100 * test_accuracies(metrics) for metrics in own.values()]
        left.plot(counts, [values.mean() for values in accuracies], color=color, label=label)
        for count, values in zip(counts, accuracies, strict=True):
            left.plot(np.full(len(values), count), values, "o", color=color, alpha=0.5, ms=5, mew=0)
        right.plot(counts, [100 * metrics["generalization_gap"] for metrics in own.values()], "o-", color=color, ms=5)
    for axes in (left, right):
        axes.set(xscale="log", xlabel="training images")
        axes.set_xticks(counts, [f"{count:,.0f}" for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
    left.set_ylabel("test accuracy (%)")
    right.set_ylabel("training less test accuracy (points)")
    left.legend()
    add_caption(figure, caption)
    return figure


def draw_bars(comparison: Comparison, caption: str) -> Figure:
    """Test accuracy by share, and the first epoch with each of LEVELS on all images: a bar per way, mean over seeds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), width_ratios=(3, 2))
    shares = list(next(iter(comparison.metrics.values())))
    for offset, (way, (label, color)) in zip((-0.2, 0.2), WAYS.items(), strict=True):
        accuracies = [100 * comparison.metrics[way][share]["test_accuracy"] for share in shares]
        bars = left.bar(np.arange(len(shares)) + offset, accuracies, 0.4, color=color, label=label)
        left.bar_label(bars, fmt="%.1f", fontsize=8)
        epochs = [first_epoch_at(comparison.curves[way], level / 100) for level in LEVELS]
        bars = right.bar(np.arange(len(LEVELS)) + offset, [epoch or 0 for epoch in epochs], 0.4, color=color)
        right.bar_label(bars, [f"{epoch:.1f}" if epoch else "never" for epoch in epochs], fontsize=8)
    left.set_xticks(range(len(shares)), [f"{round(comparison.images * share / 100):,}" for share in shares])
    left.set(xlabel="training images", ylabel="test accuracy (%)")
    right.set_xticks(range(len(LEVELS)), [f"{level}" for level in LEVELS])
    right.set(xlabel="validation accuracy (%)", ylabel="first epoch that reaches it")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    add_caption(figure, f"{caption}. Right: all training images; never: some seed does not reach it")
    return figure


def first_epoch_at(curves: pd.DataFrame, accuracy: float) -> float | None:
    """Mean over seeds of the first epoch whose validation accuracy is at least `accuracy`; None if a seed never is."""
    reached = curves[curves["val_accuracy"] >= accuracy].groupby("seed")["epoch"].min()
    return float(reached.mean()) if len(reached) == curves["seed"].nunique() else None
