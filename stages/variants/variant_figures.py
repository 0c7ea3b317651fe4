"""Studies of variants, summed up and drawn."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from stages.models.configurations import color_of, label_of
from stages.reporting.captions import add_caption

AXES = {
    "thresholds": "clipping threshold (total gradient norm)",
    "batch_sizes": "batch size (images)",
    "placements": "where the norm acts",
}
PANELS = {
    "thresholds": {
        "val_accuracy": "best validation accuracy",
        "clip_fraction": "share of steps clipped",
        "update_ratio": "update norm / weight norm of FC1",
    },
    "batch_sizes": {"val_accuracy": "best validation accuracy", "grad_norm": "total gradient norm"},
    "placements": {"val_accuracy": "best validation accuracy", "grad_norm": "total gradient norm"},
}
MEANS = ["clip_fraction", "clip_coefficient", "grad_norm", "update_ratio", "saturated_at_start", "saturated"]
SHARES = ("val_accuracy", "clip_fraction", "update_ratio")


def summarize_runs(table: pd.DataFrame) -> pd.DataFrame:
    """One row per norm, variant and seed, in the order of `table`: the best accuracy, and means over epochs."""
    groups = table.groupby(["norm", "variant", "seed"], sort=False)
    means = groups[MEANS].mean()
    return means.assign(val_accuracy=groups["val_accuracy"].max()).reset_index()


def summarize_variants(table: pd.DataFrame) -> dict[str, float]:
    """`val_accuracy_<norm>_<variant>`, mean over seeds of each run's best epoch, and how many seeds there are."""
    runs = summarize_runs(table)
    means = runs.groupby(["norm", "variant"], sort=False)["val_accuracy"].mean()
    return {"seeds": int(runs["seed"].nunique())} | {
        f"val_accuracy_{norm}_{variant}": float(value) for (norm, variant), value in means.items()
    }


def draw_panel(axes: Axes, runs: pd.DataFrame, column: str) -> None:
    """One line per norm over the variants, one point per seed."""
    variants = runs["variant"].unique()
    for norm, own in runs.groupby("norm", sort=False):
        positions = [np.flatnonzero(variants == variant)[0] for variant in own["variant"]]
        axes.plot(positions, own[column], "o", color=color_of(norm), alpha=0.5, ms=5, mew=0)
        means = own.groupby("variant", sort=False)[column].mean()
        axes.plot(range(len(variants)), means[variants], color=color_of(norm), label=label_of(norm))
    axes.set_xticks(range(len(variants)), variants)
    if column in SHARES:
        axes.yaxis.set_major_formatter(PercentFormatter(1))


def draw_epsilon(axes: Axes, table: pd.DataFrame) -> None:
    """FRN's learned epsilon at the start of every epoch, a line per seed."""
    learned = table[table["learned_eps"].notna()]
    for _, own in learned.groupby(["variant", "seed"]):
        axes.plot(own["epoch"], own["learned_eps"], color=color_of("frn"))
    axes.set(xlabel="epoch", ylabel="FRN's learned epsilon (RMS of units)", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_variants(table: pd.DataFrame, study: str, caption: str) -> Figure:
    """One panel per figure of PANELS; for placements also the epsilon that FRN learns on a pooled vector."""
    runs, panels = summarize_runs(table), PANELS[study]
    learns = study == "placements" and table["learned_eps"].notna().any()
    count = len(panels) + learns
    figure, grid = plt.subplots(1, count, figsize=(4.4 * count, 3.8), squeeze=False)
    for axes, (column, label) in zip(grid.flat, panels.items(), strict=False):
        draw_panel(axes, runs, column)
        axes.set(xlabel=AXES[study], ylabel=label)
    if learns:
        draw_epsilon(grid[0, -1], table)
    grid[0, 0].legend()
    add_caption(figure, f"{caption}. Points: seeds, lines: their means")
    return figure
