"""Figures: one palette and one style everywhere."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from stages.core.files import write
from stages.data.cifar10 import CLASS_NAMES, CIFAR10Data

LINES = {"noclip": "-", "clip": "--"}
MARKERS = {"noclip": "o", "clip": "D"}
PARTS = {"train": "#0072B2", "val": "#E69F00", "test": "#999999"}
SEQUENCE = ("#56B4E9", "#E69F00", "#009E73", "#0072B2", "#000000", "#CC79A7")  # where norms do not matter
DPI = 150
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
plt.rcParams.update(STYLE)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a PNG without metadata that changes between runs, and close the figure."""
    write(path, lambda p: figure.savefig(p, dpi=DPI, format="png", metadata={"Software": None}))
    plt.close(figure)


def draw_samples(data: CIFAR10Data, part: str = "train", per_class: int = 10) -> Figure:
    """The first `per_class` images of each class, one class a row."""
    images, labels = data.images(part), data.labels(part)
    gap = 2  # pixels
    tile = 32 + gap
    grid = np.full((len(CLASS_NAMES) * tile - gap, per_class * tile - gap, 3), 255, dtype=np.uint8)
    for row in range(len(CLASS_NAMES)):
        for column, image in enumerate(images[labels == row][:per_class]):
            grid[row * tile : row * tile + 32, column * tile : column * tile + 32] = image
    figure, axes = plt.subplots(figsize=(6.4, 6))
    axes.imshow(grid, interpolation="nearest")
    axes.set_yticks([row * tile + 16 for row in range(len(CLASS_NAMES))], CLASS_NAMES)
    axes.set_xticks([])
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("CIFAR-10 training images (32 x 32 pixels)")
    return figure


def draw_class_distribution(data: CIFAR10Data) -> Figure:
    """Images per class, one bar per part of the split."""
    figure, axes = plt.subplots(figsize=(8, 3.6))
    width = 0.8 / len(data.split)
    for k, part in enumerate(data.split):
        counts = np.bincount(data.labels(part), minlength=len(CLASS_NAMES))
        positions = np.arange(len(CLASS_NAMES)) + (k - (len(data.split) - 1) / 2) * width
        bars = axes.bar(positions, counts, width, color=PARTS[part], label=f"{part} ({counts.sum():,} images)")
        axes.bar_label(bars, fontsize=6, padding=1)
    axes.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES, fontsize=8)
    axes.set_ylabel("images")
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=len(data.split))
    return figure
