"""The report's figures, each a function from Results to a matplotlib figure."""

import re
from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from stages.models.configurations import MODES, color_of, label_of, name_of, split_key
from stages.reporting.captions import add_caption
from stages.reporting.plotting import LINES, MARKERS
from stages.reporting.results import Results, clip_effect, tabulate, test_accuracies
from stages.training.gradient_tracking import BINS, EDGES

LAYER_COLORS = {
    "features.18.0": "#000000",
    "features.18.1": "#56B4E9",
    "head.fc1": "#0072B2",
    "head.norm": "#D55E00",
    "head.fc2": "#009E73",
}
OTHER_COLORS = ("#CC79A7", "#E69F00", "#F0E442", "#999999")  # of modules that a head of another kind has
LAYER_LINES = {"weight": "-", "bias": "--", "eps_l": ":"}
NORM_COLUMNS = ["norm_mean", "weight_norm", "update_norm"]
LAST_BLOCK = 18  # whose layers are drawn one by one
NEGLIGIBLE_NORM = 1e-6  # below, a gradient is the rounding of an exact zero


def panel_grid(results: Results, width: float = 3.1, height: float = 2.6, **kwargs) -> tuple[Figure, Iterator]:
    """One panel per configuration: a column per norm, a row per mode; yields (key, axes)."""
    columns = len(results.norms)
    figure, grid = plt.subplots(
        len(MODES), columns, figsize=(width * columns + 0.6, height * len(MODES)), squeeze=False, **kwargs
    )
    pairs = [
        (f"{norm}-{mode}", grid[row, column])
        for row, mode in enumerate(MODES)
        for column, norm in enumerate(results.norms)
    ]
    for key, axes in pairs:
        axes.set_title(name_of(key), fontsize=10)
    return figure, pairs


def configuration_legend(figure: Figure, results: Results) -> None:
    handles = [Line2D([], [], color=color_of(split_key(k)[0]), ls=LINES[split_key(k)[1]]) for k in results.keys]
    labels = [name_of(key) for key in results.keys]
    figure.legend(handles, labels, loc="outside upper center", ncols=len(results.norms))


def draw_band(axes: Axes, curves: pd.DataFrame, column: str, key: str) -> None:
    """The mean over seeds as a line, the range over seeds as a band."""
    norm, mode = split_key(key)
    groups = curves.groupby("epoch")[column]
    mean = groups.mean()
    axes.plot(mean.index, mean, color=color_of(norm), ls=LINES[mode], lw=1.5)
    axes.fill_between(mean.index, groups.min(), groups.max(), color=color_of(norm), alpha=0.12, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_curves(results: Results) -> Figure:
    """Loss and accuracy, training and validation, of all configurations."""
    figure, grid = plt.subplots(2, 2, figsize=(9, 6.4), sharex=True)
    panels = {
        "train_loss": "training loss (nats)",
        "val_loss": "validation loss (nats)",
        "train_accuracy": "training accuracy",
        "val_accuracy": "validation accuracy",
    }
    for axes, (column, label) in zip(grid.flat, panels.items(), strict=True):
        for key in results.keys:
            draw_band(axes, results.curves[key], column, key)
        axes.set_ylabel(label)
        if "accuracy" in column:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.set_xlabel("epoch")
    configuration_legend(figure, results)
    add_caption(
        figure,
        results.caption,
        "Line: mean over seeds, band: their range. Training figures include augmentation and dropout",
    )
    return figure


def draw_accuracy(results: Results) -> Figure:
    """Test accuracy of every seed and its mean, one row per configuration: the headline."""
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for row, key in enumerate(results.keys):
        norm, mode = split_key(key)
        values = 100 * test_accuracies(results.metrics[key])
        axes.plot(values, np.full(len(values), row), MARKERS[mode], color=color_of(norm), alpha=0.45, ms=6, mew=0)
        axes.plot([values.mean()] * 2, [row - 0.28, row + 0.28], color=color_of(norm), lw=2.5)
        axes.annotate(
            f"{values.mean():.2f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", color=color_of(norm)
        )
    axes.set_yticks(range(len(results.keys)), [name_of(key) for key in results.keys])
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy (%)")
    axes.grid(axis="y", visible=False)
    add_caption(figure, results.caption, "Points: seeds, bars and numbers: their means")
    return figure


def draw_convergence(results: Results) -> Figure:
    """Epochs until a share of the best validation accuracy is reached, mean over seeds and every seed."""
    shares = (0.95, 0.98, 0.99, 0.995)
    figure, panels = plt.subplots(1, len(shares), figsize=(9.5, 3.2), sharey=True)
    for axes, share in zip(panels, shares, strict=True):
        for row, key in enumerate(results.keys):
            norm, mode = split_key(key)
            epochs = [
                run.loc[run["val_accuracy"] >= share * run["val_accuracy"].max(), "epoch"].iloc[0]
                for _, run in results.curves[key].groupby("seed")
            ]
            axes.barh(row, np.mean(epochs), color=color_of(norm), alpha=0.85 if mode == "noclip" else 0.5)
            axes.plot(epochs, np.full(len(epochs), row), "k.", ms=4)
        axes.set_title(f"{100 * share:g}% of the best")
        axes.set_xlabel("epochs")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(results.keys)), [name_of(key) for key in results.keys])
    panels[0].invert_yaxis()
    add_caption(
        figure,
        results.caption,
        "First epoch whose validation accuracy reaches that share of the run's best. Points: seeds",
    )
    return figure


def draw_gradient_norms(results: Results) -> Figure:
    """Total gradient norm before clipping, and the share of steps that clipping shortened."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
    for key in results.keys:
        draw_band(left, results.curves[key], "grad_norm", key)
        if key.endswith("-clip"):
            draw_band(right, results.curves[key], "clip_fraction", key)
    left.set(xlabel="epoch", ylabel="total gradient norm, mean over steps")
    left.set_ylim(bottom=0)
    right.set(xlabel="epoch", ylabel="share of steps clipped", ylim=(0, 1.02))
    right.yaxis.set_major_formatter(PercentFormatter(1))
    configuration_legend(figure, results)
    add_caption(
        figure,
        results.caption,
        "L2 norm of all trainable parameters' gradients, before clipping. Band: range over seeds",
    )
    return figure


def name_block(layer: str) -> str:
    """`features.k` for a layer of one of MobileNetV2's blocks before the last, else the layer itself."""
    block = re.match(r"features\.(\d+)\.", layer)
    return f"features.{block[1]}" if block and int(block[1]) < LAST_BLOCK else layer


def join_blocks(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each block before the last in place of its layers': the root of the sum of squares of their norms.

    There are up to 130 such layers: too many for lines in one panel.
    """
    names = frame["layer"].map(name_block)
    early = names != frame["layer"]
    if not early.any():
        return frame
    squares = frame.loc[early, NORM_COLUMNS] ** 2
    groups = squares.groupby([frame["seed"], frame["epoch"], names.rename("layer")], sort=False)
    return pd.concat([np.sqrt(groups.sum(min_count=1)).reset_index(), frame[~early]], ignore_index=True)


def choose_styles(layers: list[str]) -> dict[str, dict]:
    """One colour per module, one dash per kind of parameter; blocks from light to dark in the order of the network."""
    blocks = [layer for layer in layers if re.fullmatch(r"features\.\d+", layer)]
    modules = {layer: layer if layer in blocks else layer.rpartition(".")[0] for layer in layers}
    shades = colormaps["YlOrBr"](np.linspace(0.25, 0.95, len(blocks)))
    colors = LAYER_COLORS | dict(zip(blocks, shades, strict=True))
    others = [module for module in dict.fromkeys(modules.values()) if module not in colors]
    colors |= dict(zip(others, cycle(OTHER_COLORS), strict=False))
    return {
        layer: {"color": colors[module], "ls": "-" if layer in blocks else LAYER_LINES.get(layer.split(".")[-1], "-.")}
        for layer, module in modules.items()
    }


def draw_layers(results: Results, values: Callable[[pd.DataFrame], pd.Series], label: str, extra: str) -> Figure:
    """Some `values` of every layer over epochs, mean over seeds, logarithmic; one panel per configuration."""
    figure, panels = panel_grid(results, width=max(3.1, 6.2 / len(results.norms)), sharex=True, sharey=True)
    gradients = {key: join_blocks(frame) for key, frame in results.gradients.items()}
    layers = list(dict.fromkeys(layer for frame in gradients.values() for layer in frame["layer"]))
    styles = choose_styles(layers)
    lowest = np.inf
    for k, (key, axes) in enumerate(panels):
        frame = gradients[key]
        frame = frame.assign(value=values(frame).where(frame["norm_mean"] > NEGLIGIBLE_NORM))
        table = frame.pivot_table(index="epoch", columns="layer", values="value", sort=False)
        for layer in table:
            axes.plot(table.index, table[layer], lw=1.4, **styles[layer])
        lowest = min(lowest, table.min().min())
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if k % len(results.norms) == 0:
            axes.set_ylabel(label)
        if k >= len(results.norms):
            axes.set_xlabel("epoch")
    if np.isfinite(lowest):  # nothing to show where an epoch has a single step
        panels[0][1].set_ylim(bottom=lowest / 2)
    handles = [Line2D([], [], **style) for style in styles.values()]
    figure.legend(handles, layers, loc="outside right center", fontsize=8)
    if set(layers) & {f"features.{block}" for block in range(LAST_BLOCK)}:
        extra = f"{extra}. Of a block, the root of the sum of squares over its layers"
    add_caption(figure, results.caption, f"{extra}. BatchNorm cancels head.fc1.bias, whose gradient is zero: not shown")
    return figure


def draw_gradient_layers(results: Results) -> Figure:
    """Per-layer gradient norm."""
    return draw_layers(
        results, lambda frame: frame["norm_mean"], "gradient norm", "Mean over steps and seeds, before clipping"
    )


def draw_update_ratios(results: Results) -> Figure:
    """How far Adam's step moves each layer, in units of the layer's own norm."""
    return draw_layers(
        results,
        lambda frame: frame["update_norm"] / frame["weight_norm"].where(frame["weight_norm"] > 0),
        "update norm / weight norm",
        "First step of every epoch, mean over seeds, after clipping. The norm's bias starts at zero: no ratio there",
    )


def draw_gradient_histograms(results: Results) -> Figure:
    """Distribution of |g| over all trainable parameters at the start of the first, the middle and the last epoch."""
    figure, panels = panel_grid(results, sharex=True, sharey=True)
    for k, (key, axes) in enumerate(panels):
        frame = results.gradients[key]
        last = frame["epoch"].max()
        for epoch, color in zip(sorted({1, (last + 1) // 2, last}), ("#56B4E9", "#0072B2", "#000000"), strict=False):
            shares = frame[frame["epoch"] == epoch].groupby("layer")[BINS].mean()
            axes.stairs(100 * shares.mean()[1:-1], EDGES, color=color, label=f"epoch {epoch}", lw=1.4)
        axes.set_xscale("log")
        axes.set_xlim(1e-7, EDGES[-1])
        if k % len(results.norms) == 0:
            axes.set_ylabel("entries (%)")
        if k >= len(results.norms):
            axes.set_xlabel("|gradient entry|")
    panels[0][1].legend(fontsize=8)
    add_caption(
        figure,
        results.caption,
        "First step of the epoch, half-decade bins, mean over layers (each weighted alike) and seeds",
    )
    return figure


def loss_limits(results: Results) -> tuple[float, float]:
    losses = [results.landscapes[key]["loss"] for key in results.keys]
    return min(loss.min() for loss in losses), max(loss.max() for loss in losses)


def draw_landscape_contours(results: Results) -> Figure:
    """The six landscapes from above, on one logarithmic colour scale."""
    low, high = loss_limits(results)
    levels = np.geomspace(low, high, 22)
    figure, panels = panel_grid(results, height=2.9, sharex=True, sharey=True)
    for k, (key, axes) in enumerate(panels):
        surface = results.landscapes[key]
        grid = (surface["alphas"], surface["betas"], surface["loss"].T)
        filled = axes.contourf(*grid, levels=levels, norm=LogNorm(low, high), cmap="viridis")
        axes.contour(*grid, levels=levels[::2], colors="white", linewidths=0.4)
        axes.plot(0, 0, "+", color="white", ms=8)
        axes.set_aspect("equal")
        axes.grid(False)
        if k % len(results.norms) == 0:
            axes.set_ylabel("beta")
        if k >= len(results.norms):
            axes.set_xlabel("alpha")
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= t <= high]
    bar = figure.colorbar(filled, ax=[axes for _, axes in panels], label="validation loss (nats)", ticks=ticks)
    bar.ax.minorticks_off()
    bar.ax.set_yticklabels([f"{t:g}" for t in ticks])
    add_caption(
        figure,
        results.caption,
        "Filter-normalised random directions, first seed; the cross marks the trained weights",
    )
    return figure


def draw_landscape_surfaces(results: Results) -> Figure:
    """The six landscapes in perspective, on one scale."""
    low, high = loss_limits(results)
    figure, panels = panel_grid(results, height=3.1, subplot_kw={"projection": "3d"})
    for key, axes in panels:
        surface = results.landscapes[key]
        a, b = np.meshgrid(surface["alphas"], surface["betas"], indexing="ij")
        axes.plot_surface(a, b, surface["loss"], cmap="viridis", norm=LogNorm(low, high), lw=0, rcount=51, ccount=51)
        axes.set_zlim(0, high)
        axes.zaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("alpha", fontsize=8, labelpad=-6)
        axes.set_ylabel("beta", fontsize=8, labelpad=-6)
        axes.set_zlabel("loss (nats)", fontsize=8, labelpad=-4)
        axes.set_xticks(np.linspace(*surface["alphas"][[0, -1]], 3))
        axes.set_yticks(np.linspace(*surface["betas"][[0, -1]], 3))
        axes.tick_params(labelsize=7, pad=-2)
        axes.view_init(elev=28, azim=-55)
        axes.set_box_aspect(None, zoom=0.86)
    add_caption(figure, results.caption, "Validation loss over two filter-normalised random directions, first seed")
    return figure


def draw_clipping_effect(results: Results) -> Figure:
    """Paired differences, clipped less not clipped, per norm: test accuracy and best epoch of every seed."""
    figure, axes = plt.subplots(figsize=(6.5, 3.2))
    for row, norm in enumerate(results.norms):
        effect = 100 * clip_effect(results.metrics, norm)
        axes.plot(effect, np.full(len(effect), row), "o", color=color_of(norm), alpha=0.5, ms=7, mew=0)
        axes.plot([effect.mean()] * 2, [row - 0.25, row + 0.25], color=color_of(norm), lw=2.5)
        axes.annotate(
            f"{effect.mean():+.2f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", color=color_of(norm)
        )
    axes.axvline(0, color="#333333", lw=1)
    limit = 1.15 * max(abs(value) for value in axes.get_xlim())
    axes.set_xlim(-limit, limit)
    axes.set_yticks(range(len(results.norms)), [label_of(norm) for norm in results.norms])
    axes.set_ylim(len(results.norms) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, clipped less not clipped (points)")
    axes.grid(axis="y", visible=False)
    add_caption(
        figure,
        results.caption,
        "Points: seeds (paired: same split, batches and initial FC weights), bars and numbers: means",
    )
    return figure


def draw_table(results: Results) -> Figure:
    """The results table as a picture."""
    header, rows = tabulate(results.metrics)
    figure, axes = plt.subplots(figsize=(9.5, 0.42 * (len(rows) + 2)))
    axes.axis("off")
    table = axes.table(
        rows,
        colLabels=header,
        loc="center",
        cellLoc="center",
        colWidths=[0.23, *[0.125] * 5, 0.145],
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, 1.6)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#BBBBBB")
        if row == 0:
            cell.set_text_props(weight="bold")
        elif column == 0:
            cell.set_text_props(ha="left", color=color_of(split_key(results.keys[row - 1])[0]), weight="bold")
    add_caption(
        figure,
        results.caption,
        "Mean ± standard deviation over seeds; the gap is training (clean) less test accuracy",
    )
    return figure


FIGURES = {
    "accuracy": draw_accuracy,
    "curves": draw_curves,
    "convergence": draw_convergence,
    "clipping_effect": draw_clipping_effect,
    "gradient_norms": draw_gradient_norms,
    "gradient_layers": draw_gradient_layers,
    "update_ratios": draw_update_ratios,
    "gradient_histograms": draw_gradient_histograms,
    "landscape_contours": draw_landscape_contours,
    "landscape_surfaces": draw_landscape_surfaces,
    "table": draw_table,
}
