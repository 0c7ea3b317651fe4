"""Figures of what MobileNetV2's layers compute before and after fine-tuning."""

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from stages.data.cifar10 import CLASS_NAMES
from stages.reporting.captions import add_caption

CHANNELS = 3  # of each layer


def draw_similarity(similarity: dict[int, float], caption: str) -> Figure:
    """Linear CKA before against after, per block; frozen blocks are 1 by construction."""
    figure, axes = plt.subplots(figsize=(7, 3.4))
    axes.plot(list(similarity), list(similarity.values()), "o-", color="#0072B2", ms=4)
    axes.set_xticks(range(0, max(similarity) + 1, 2))
    axes.set(xlabel="block (features.k)", ylabel="linear CKA, before against after")
    add_caption(figure, caption)
    return figure


def draw_embedding(pictures: dict[str, np.ndarray], labels: np.ndarray, caption: str) -> Figure:
    """One panel per picture (N, 2), the points coloured by class."""
    figure, panels = plt.subplots(1, len(pictures), figsize=(5 * len(pictures), 5.3))
    colors = plt.get_cmap("tab10")
    for axes, (title, points) in zip(panels, pictures.items(), strict=True):
        for index, name in enumerate(CLASS_NAMES):
            own = points[labels == index]
            axes.plot(own[:, 0], own[:, 1], "o", color=colors(index), ms=3, mew=0, alpha=0.75, label=name)
        axes.set(title=title, xticks=[], yticks=[])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, markerscale=2.5)
    add_caption(figure, caption)
    return figure


def draw_maps(
    images: np.ndarray, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], caption: str
) -> Figure:
    """Maps (N, C, H, W) of those channels of each layer that vary most within images, as two rows per image."""
    columns = 1 + CHANNELS * len(before)
    figure, grid = plt.subplots(2 * len(images), columns, figsize=(1.02 * columns, 2.1 * len(images) + 0.8))
    for axes in grid.flat:
        axes.axis("off")
    chosen = {layer: maps.std((2, 3)).mean(0).argsort(descending=True)[:CHANNELS] for layer, maps in before.items()}
    for row, image in enumerate(images):
        grid[2 * row, 0].imshow(image)
        for place, layer in enumerate(before):
            own, later = before[layer][row], after[layer][row]
            frozen = torch.equal(own, later)
            for offset, channel in enumerate(chosen[layer].tolist()):
                column = 1 + CHANNELS * place + offset
                top = max(own[channel].max(), later[channel].max()).item()
                low = min(own[channel].min(), later[channel].min()).item()
                grid[2 * row, column].imshow(own[channel], cmap="viridis", vmin=low, vmax=top)
                if not frozen:
                    grid[2 * row + 1, column].imshow(later[channel], cmap="viridis", vmin=low, vmax=top)
                if row == 0:
                    heading = f"{layer}\n" if offset == 1 else "\n"
                    grid[0, column].set_title(f"{heading}channel {channel}", fontsize=7)
            if frozen:
                middle = grid[2 * row + 1, 2 + CHANNELS * place]
                middle.text(0.5, 0.5, "frozen:\nas above", ha="center", va="center", fontsize=8, color="#555555")
        for axes, text in zip(grid[2 * row : 2 * row + 2, 0], ("before", "after"), strict=True):
            axes.text(-0.15, 0.5, text, transform=axes.transAxes, rotation=90, va="center", ha="right", fontsize=8)
    add_caption(figure, caption)
    return figure
