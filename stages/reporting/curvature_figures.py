"""Figures of the curvature, each a function from CurvatureResults to a matplotlib figure."""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from stages.measure.paired_tests import ALPHA
from stages.models.configurations import MODES, color_of, label_of, name_of, split_key
from stages.reporting.captions import add_caption
from stages.reporting.curvature_results import MEASURES, CurvatureResults
from stages.reporting.figures import configuration_legend, panel_grid
from stages.reporting.plotting import LINES, MARKERS


def draw_densities(results: CurvatureResults) -> Figure:
    """Spectral densities, one panel per configuration, on common axes."""
    figure, panels = panel_grid(results, sharex=True, sharey=True)
    for k, (key, axes) in enumerate(panels):
        curve = results.detail(key, "density")
        norm, _ = split_key(key)
        axes.fill_between(curve["x"], curve["value"], 1e-7, color=color_of(norm), alpha=0.3, lw=0)
        axes.plot(curve["x"], curve["value"], color=color_of(norm), lw=1.2)
        axes.axvline(0, color="#333333", lw=0.6)
        axes.set_yscale("log")
        axes.set_ylim(bottom=1e-7)
        if k % len(results.norms) == 0:
            axes.set_ylabel("density")
        if k >= len(results.norms):
            axes.set_xlabel("eigenvalue of the Hessian")
    add_caption(
        figure,
        results.caption,
        "Stochastic Lanczos quadrature, first seed; each node is drawn as a Gaussian of fixed width",
    )
    return figure


def draw_eigenvalues(results: CurvatureResults) -> Figure:
    """The largest and the lowest eigenvalues and the trace of every seed, one row per configuration."""
    figure, panels = plt.subplots(1, 3, figsize=(9.5, 3.4), sharey=True)
    titles = ("lowest eigenvalues", "largest eigenvalues", "trace")
    for axes, prefix, title in zip(panels, ("lambda_min", "lambda_max", "trace"), titles, strict=True):
        for row, key in enumerate(results.keys):
            norm, mode = split_key(key)
            columns = [name for name in results.seeds[key] if name.startswith(prefix) and name != "trace_error"]
            for rank, column in enumerate(columns):
                values = results.seeds[key][column]
                faint = {"alpha": 0.75 if rank == 0 else 0.3, "ms": 6 if rank == 0 else 4, "mew": 0}
                axes.plot(values, np.full(len(values), row), MARKERS[mode], color=color_of(norm), **faint)
        axes.set_title(title, fontsize=10)
        axes.axvline(0, color="#333333", lw=0.8)
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(results.keys)), [name_of(key) for key in results.keys])
    panels[0].invert_yaxis()
    add_caption(
        figure,
        results.caption,
        "One large point per seed for the extreme eigenvalue, small ones for those next to it",
    )
    return figure


def draw_ratios(results: CurvatureResults) -> Figure:
    """|lambda_min / lambda_max| around the trained weights, six panels on one scale."""
    ratios = {key: (results.grid(key, "lambda_min") / results.grid(key, "lambda_max")).abs() for key in results.keys}
    low, high = min(r.min().min() for r in ratios.values()), max(r.max().max() for r in ratios.values())
    figure, panels = panel_grid(results, height=2.9, sharex=True, sharey=True)
    for k, (key, axes) in enumerate(panels):
        ratio = ratios[key]
        step = (ratio.index[1] - ratio.index[0]) / 2
        extent = (ratio.index[0] - step, ratio.index[-1] + step) * 2
        image = axes.imshow(ratio.T, origin="lower", extent=extent, norm=LogNorm(low, high), cmap="cividis")
        for alpha, beta in product(ratio.index, ratio.columns):
            value = ratio.loc[alpha, beta]
            dark = np.log(value / low) < np.log(high / low) / 2
            axes.text(alpha, beta, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if dark else "k")
        axes.grid(False)
        if k % len(results.norms) == 0:
            axes.set_ylabel("beta")
        if k >= len(results.norms):
            axes.set_xlabel("alpha")
    figure.colorbar(image, ax=[axes for _, axes in panels], label="|lowest / largest eigenvalue|")
    add_caption(figure, results.caption, "Filter-normalised random directions, first seed; small: nearly convex")
    return figure


def draw_slices(results: CurvatureResults) -> Figure:
    """The loss along the first two eigenvectors and from the initial to the final weights."""
    names = [name for name in ("eigenvector1", "eigenvector2", "path") if len(results.detail(results.keys[0], name))]
    figure, panels = plt.subplots(1, len(names), figsize=(9.5, 3.7))
    for axes, name in zip(panels, names, strict=True):
        for key in results.keys:
            norm, mode = split_key(key)
            curve = results.detail(key, name)
            axes.plot(curve["x"], curve["value"], color=color_of(norm), ls=LINES[mode], lw=1.5)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.axvline(float(name == "path"), color="#333333", lw=0.8)
        rank = {"1": "first", "2": "second"}.get(name[-1])
        axes.set_title("initial (0) to final (1) weights" if name == "path" else f"{rank} eigenvector", fontsize=10)
        axes.set_xlabel("share of the path" if name == "path" else "distance along the unit vector")
    panels[0].set_ylabel("validation loss (nats)")
    configuration_legend(figure, results)
    add_caption(
        figure,
        results.caption,
        "First seed; the line marks the trained weights. Only parameters move, no statistics",
    )
    return figure


def draw_pairs(results: CurvatureResults) -> Figure:
    """Curvature and flat share in every pair of random directions: how far one picture can mislead."""
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True)
    labels = {"curvature": "curvature along random directions", "flat_share": "share of the plane within 0.1 nats"}
    seeds = len(results.seeds[results.keys[0]])
    step = min(0.22, 0.8 / seeds)  # between the lines of seeds: those of a configuration stay in its row
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        for row, key in enumerate(results.keys):
            norm, mode = split_key(key)
            for index, values in enumerate(results.seeds[key].filter(like=f"{name}_pair").to_numpy()):
                y = row + step * (index - (seeds - 1) / 2)
                axes.plot([values.min(), values.max()], [y, y], color=color_of(norm), lw=1.2, alpha=0.5)
                axes.plot(
                    values, np.full(len(values), y), MARKERS[mode], color=color_of(norm), ms=4.5, alpha=0.7, mew=0
                )
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(results.keys)), [name_of(key) for key in results.keys])
    panels[0].invert_yaxis()
    add_caption(figure, results.caption, "One line per seed, one point per pair of filter-normalised random directions")
    return figure


def draw_correlations(results: CurvatureResults, table: pd.DataFrame) -> Figure:
    """Rank correlation of every measure with the generalization gap, and its 95% interval."""
    figure, axes = plt.subplots(figsize=(9, 4.4))
    styles = {"all models": ("o", "#333333", -0.15), "within norms": ("s", "#CC79A7", 0.15)}
    for row, measure in enumerate(MEASURES):
        for found in table[table["measure"] == measure].itertuples():
            marker, color, shift = styles[found.scope]
            axes.plot([found.low, found.high], [row + shift] * 2, color=color, lw=2, alpha=0.6)
            axes.plot(found.rho, row + shift, marker, color=color, ms=6, mfc=color if found.p_adjusted < ALPHA else "w")
    axes.axvline(0, color="#333333", lw=1)
    axes.set_xlim(-1.02, 1.02)
    axes.set_yticks(range(len(MEASURES)), MEASURES.values())
    axes.invert_yaxis()
    axes.set_xlabel("Spearman's rank correlation with the generalization gap")
    axes.grid(axis="y", visible=False)
    labels = [f"over all {table['models'].iloc[0]} models", "within norms (less their means)"]
    handles = [Line2D([], [], color=color, marker=marker) for marker, color, _ in styles.values()]
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    add_caption(
        figure, results.caption, "Bars: 95% intervals (Bonett & Wright); filled: p < 0.05 after Holm's correction"
    )
    return figure


def draw_scatter(results: CurvatureResults) -> Figure:
    """Every measure against the generalization gap, one point per model."""
    models = results.models
    figure, grid = plt.subplots(2, 4, figsize=(10, 5.2), sharey=True)
    for axes, (measure, label) in zip(grid.flat, MEASURES.items(), strict=True):
        for key, rows in models.groupby("key", sort=False):
            norm, mode = split_key(key)
            axes.plot(rows[measure], 100 * rows["gap"], MARKERS[mode], color=color_of(norm), ms=5, alpha=0.75, mew=0)
        axes.set_xlabel(label, fontsize=8.5)
    for axes in grid[:, 0]:
        axes.set_ylabel("gap (points)")
    styles = [(color_of(norm), "o", label_of(norm)) for norm in results.norms]
    styles += [("#777777", marker, MODES[mode]) for mode, marker in MARKERS.items()]
    handles = [Line2D([], [], color=color, marker=marker, ls="") for color, marker, _ in styles]
    figure.legend(handles, [label for *_, label in styles], loc="outside upper center", ncols=len(styles))
    add_caption(figure, results.caption, "Gap: training accuracy, without augmentation or dropout, less test accuracy")
    return figure


FIGURES = {
    "densities": draw_densities,
    "eigenvalues": draw_eigenvalues,
    "ratios": draw_ratios,
    "slices": draw_slices,
    "direction_pairs": draw_pairs,
    "gap": draw_scatter,
}
