"""Figures of a study that trains networks from images: curves, accuracies, cost against accuracy, wrong images."""

from itertools import cycle
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from stages.data.cifar10 import CLASS_NAMES
from stages.reporting.captions import add_caption
from stages.reporting.error_figures import draw_images
from stages.reporting.plotting import SEQUENCE
from stages.reporting.results import test_accuracies
from stages.training.predictions import Predictions

GALLERY = 32  # images
COLUMNS = 4  # of panels and of legends
LABEL_WIDTH = 28  # characters, of a variant's name
STYLES = tuple({"marker": marker, "color": color} for marker in "os^" for color in SEQUENCE)
COSTS = {"parameters": "parameters", "multiply_adds": "multiply-adds per image"}


def draw_curves(curves: dict[str, pd.DataFrame], caption: str) -> Figure:
    """Loss and accuracy over epochs, means over seeds: in two panels, or with many variants in a panel for each."""
    draw = draw_together if len(curves) <= len(SEQUENCE) else draw_apart
    return draw({name: table.groupby("epoch").mean() for name, table in curves.items()}, caption)


def draw_together(means: dict[str, pd.DataFrame], caption: str) -> Figure:
    """A panel for the loss and one for the accuracy, a colour per variant, dashed for the training images."""
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 4))
    for color, (name, table) in zip(SEQUENCE, means.items(), strict=False):
        for axes, column in zip(panels, ("loss", "accuracy"), strict=True):
            for part, style in (("train", "--"), ("val", "-")):
                own = table[f"{part}_{column}"]
                axes.plot(own.index, own, style, color=color, lw=1.4, label=name if part == "val" else None)
    panels[0].set(xlabel="epoch", ylabel="cross-entropy (nats)")
    panels[1].set(xlabel="epoch", ylabel="accuracy")
    panels[1].yaxis.set_major_formatter(PercentFormatter(1))
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    parts = "Solid: validation images; dashed: training images as trained on, augmented and under dropout if any"
    add_caption(figure, f"{caption}\n{parts}")
    return figure


def draw_apart(means: dict[str, pd.DataFrame], caption: str) -> Figure:
    """The validation accuracy in a panel per variant, before the others in grey."""
    rows = -(-len(means) // COLUMNS)
    figure, panels = plt.subplots(rows, COLUMNS, figsize=(9.5, 1.9 * rows + 0.5), sharex=True, sharey=True)
    for axes in panels.flat[len(means) :]:
        axes.set_axis_off()
    for axes, (name, table) in zip(panels.flat, means.items(), strict=False):
        for other in means.values():
            axes.plot(other.index, other["val_accuracy"], color="#cccccc", lw=0.8)
        axes.plot(table.index, table["val_accuracy"], "o-", color=SEQUENCE[3], lw=1.8, ms=3)
        axes.set_title(fill(name, LABEL_WIDTH), fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in panels[-1]:
        axes.set_xlabel("epoch", fontsize=9)
    figure.supylabel("validation accuracy", fontsize=10)
    add_caption(figure, f"{caption}. Grey: the other variants")
    return figure


def draw_accuracies(metrics: dict[str, dict], caption: str) -> Figure:
    """Test accuracy of every variant: a point per seed, a bar at the mean."""
    figure, axes = plt.subplots(figsize=(7.5, 0.42 * len(metrics) + 1.4))
    for row, own in enumerate(metrics.values()):
        values = 100 * test_accuracies(own)
        axes.plot(values, np.full(len(values), row), "o", color=SEQUENCE[3], alpha=0.5, ms=6, mew=0)
        axes.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=SEQUENCE[3], lw=2.5)
        mean = f"{100 * own['test_accuracy']:.2f}"
        axes.annotate(mean, (values.mean(), row), (0, 9), textcoords="offset points", fontsize=8)
    axes.set_yticks(range(len(metrics)), [fill(name, LABEL_WIDTH) for name in metrics])
    axes.set_ylim(len(metrics) - 0.4, -0.8)
    axes.set_xlabel("test accuracy (%)")
    explanation = "At the epoch with the best validation accuracy. Points: seeds; bars and numbers: means"
    add_caption(figure, f"{caption}\n{explanation}")
    return figure


def find_frontier(costs: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Positions of the variants that no other beats in accuracy at the same or a lower cost, by rising cost."""
    order = np.lexsort((-accuracies, costs))
    best = np.maximum.accumulate(accuracies[order])
    return order[np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)]


def draw_frontier(metrics: dict[str, dict], caption: str) -> Figure:
    """Test accuracy against each cost, the frontier as a line."""
    figure, panels = plt.subplots(1, len(COSTS), figsize=(4.6 * len(COSTS), 4.2), sharey=True)
    accuracies = np.array([100 * test_accuracies(own).mean() for own in metrics.values()])
    for axes, (column, label) in zip(panels, COSTS.items(), strict=True):
        costs = np.array([own[column] for own in metrics.values()])
        frontier = find_frontier(costs, accuracies)
        axes.plot(costs[frontier], accuracies[frontier], color=SEQUENCE[0], lw=1.5, drawstyle="steps-post", zorder=1)
        for style, name, cost, accuracy in zip(cycle(STYLES), metrics, costs, accuracies, strict=False):
            axes.plot(cost, accuracy, linestyle="", ms=6, label=name, **style)
        axes.set(xlabel=label, xscale="log")
        axes.margins(x=0.2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
    panels[0].set_ylabel("test accuracy (%), mean over seeds")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=COLUMNS, fontsize=8)
    add_caption(figure, f"{caption}\nLine: no variant is more accurate at this cost or below")
    return figure


def draw_wrong_images(images: np.ndarray, found: Predictions, name: str, caption: str) -> Figure:
    """Test images that the first seed gets wrong, the most confident errors first, with what it sees in them."""
    predicted, confidence = found.predicted[0], found.probabilities[0].max(1)
    wrong = np.flatnonzero(predicted != found.labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:GALLERY]
    titles = [f"{CLASS_NAMES[found.labels[k]]}\nseen as {CLASS_NAMES[predicted[k]]}" for k in chosen]
    heading = f"{name}: {len(wrong)} of {len(images)} test images are wrong, the most confident first"
    return draw_images(images[chosen], titles, heading, caption)
