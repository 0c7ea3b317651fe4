"""The contrasts as a picture: every seed, the mean, and two intervals."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from stages.measure.contrasts import image_differences
from stages.models.configurations import color_of, split_key
from stages.reporting.captions import add_caption
from stages.training.predictions import Predictions


def draw_contrasts(table: pd.DataFrame, predictions: dict[str, Predictions], caption: str) -> Figure:
    """One row per contrast of `compare_over_seeds`, in points of test accuracy."""
    figure, axes = plt.subplots(figsize=(8.6, 0.48 * len(table) + 1.7))
    for row, contrast in enumerate(table.itertuples()):
        color = color_of(split_key(contrast.first)[0]) if contrast.family == "clipping" else "#333333"
        effects = image_differences(predictions, contrast.first, contrast.second).mean(1)
        axes.plot([contrast.image_low, contrast.image_high], [row, row], color=color, lw=6, alpha=0.22)
        axes.plot([contrast.low, contrast.high], [row, row], color=color, lw=2)
        axes.plot(effects, np.full(len(effects), row), "o", color=color, ms=5, alpha=0.5, mew=0)
        axes.plot(contrast.mean, row, "|", color=color, ms=16, mew=2.5)
        text = f"{contrast.mean:+.2f}   p = {contrast.p_adjusted:.2g}"
        axes.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=color)
    axes.axvline(0, color="#333333", lw=1)
    axes.set_yticks(range(len(table)), table["contrast"])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlabel("difference of test accuracy (points)")
    axes.grid(axis="y", visible=False)
    axes.annotate("mean and p over seeds, Holm", (1.01, -0.75), xycoords=("axes fraction", "data"), fontsize=8)
    explanation = "Line: 95% bootstrap interval over seeds; band: 95% interval over test images for these models"
    add_caption(figure, f"{caption}. Points: seeds\n{explanation}", points=8, color="black")
    return figure
