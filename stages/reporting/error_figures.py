"""Figures of classification errors: confusion matrices, accuracy per class, and the images themselves."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from stages.data.cifar10 import CLASS_NAMES
from stages.models.configurations import color_of, label_of, name_of, split_key
from stages.reporting.captions import add_caption
from stages.reporting.plotting import MARKERS
from stages.training.predictions import Predictions

STYLE = {"points": 8, "color": "black"}  # of captions


def draw_confusion(predictions: dict[str, Predictions], caption: str) -> Figure:
    """One matrix per configuration, in per cent of each true class; the diagonal is left out of the colours."""
    matrices = {key: 100 * found.confusion() for key, found in predictions.items()}
    off_diagonal = {key: np.where(np.eye(10, dtype=bool), np.nan, matrix) for key, matrix in matrices.items()}
    top = max(np.nanmax(matrix) for matrix in off_diagonal.values())
    columns = (len(matrices) + 1) // 2
    figure, grid = plt.subplots(2, columns, figsize=(4.1 * columns, 8.6), squeeze=False)
    for axes in grid.flat[len(matrices) :]:
        axes.axis("off")
    order = sorted(matrices, key=lambda key: split_key(key)[1] == "clip")  # a row per mode, as in the other figures
    for axes, key in zip(grid.flat, order, strict=False):
        image = axes.imshow(off_diagonal[key], cmap="Blues", vmin=0, vmax=top)
        for (row, column), value in np.ndenumerate(matrices[key]):
            if round(value):
                color = "white" if row != column and value > 0.6 * top else "#333333"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
        axes.set_xticks(range(10), CLASS_NAMES, rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(10), CLASS_NAMES, fontsize=8)
        axes.grid(False)
        axes.set(title=name_of(key), xlabel="predicted class", ylabel="true class")
    figure.colorbar(image, ax=grid, label="given another class (% of the true class)", shrink=0.6)
    caption = f"{caption}. Mean over seeds; shares below half a per cent are not written"
    add_caption(figure, caption, **STYLE)
    return figure


def draw_accuracy_per_class(table: pd.DataFrame, caption: str) -> Figure:
    """One row per class, one mark per configuration."""
    figure, axes = plt.subplots(figsize=(7.5, 4.6))
    keys = table["configuration"].unique()
    for offset, key in zip(np.linspace(-0.27, 0.27, len(keys)), keys, strict=True):
        norm, mode = split_key(key)
        own = table[table["configuration"] == key]
        face = color_of(norm) if mode == "noclip" else "white"
        rows = [CLASS_NAMES.index(name) + offset for name in own["class"]]
        axes.plot(100 * own["accuracy"], rows, MARKERS[mode], color=color_of(norm), mfc=face, ms=5, label=name_of(key))
    axes.set_yticks(range(10), CLASS_NAMES)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy within the class (%), mean over seeds")
    figure.legend(loc="outside upper center", ncols=3)
    add_caption(figure, caption, **STYLE)
    return figure


def draw_images(images: np.ndarray, titles: list[str], heading: str, caption: str, columns: int = 8) -> Figure:
    """A gallery of uint8 images (N, 32, 32, 3), each under its title."""
    rows = max(1, -(-len(images) // columns))
    figure, grid = plt.subplots(rows, columns, figsize=(1.25 * columns, 1.62 * rows + 0.7), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, images, titles, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title, fontsize=7)
    figure.suptitle(heading, fontsize=11)
    add_caption(figure, caption, **STYLE)
    return figure


def title_of_errors(predictions: dict[str, Predictions], position: int) -> str:
    """The true class and the class most often predicted for one test image."""
    votes = np.concatenate([found.predicted[:, position] for found in predictions.values()])
    label = next(iter(predictions.values())).labels[position]
    return f"{CLASS_NAMES[label]}\nseen as {CLASS_NAMES[np.bincount(votes).argmax()]}"


def title_of_dispute(predictions: dict[str, Predictions], position: int) -> str:
    """The true class, and which norms get one test image right in more than half of their models."""
    share: dict[str, list[float]] = {}
    for key, found in predictions.items():
        share.setdefault(split_key(key)[0], []).append(found.correct[:, position].mean())
    right = [label_of(norm) for norm, values in share.items() if np.mean(values) > 0.5]
    label = next(iter(predictions.values())).labels[position]
    return f"{CLASS_NAMES[label]}\nby " + ("+".join(name.removesuffix("Norm") for name in right) or "none")
