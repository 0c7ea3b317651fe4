"""Draw the validation accuracy of the small CNN over batch size and learning rate, for each norm."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from stages.core.files import read_json, write_csv, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.reporting.captions import add_caption
from stages.reporting.image_labels import OPTIMIZERS, name_variant
from stages.reporting.phrases import count
from stages.reporting.plotting import save_figure
from stages.small_cnn_sweep.cells import list_cells

STUDY = "small_cnn_sweep"


def tabulate_cells(params: Params) -> pd.DataFrame:
    """A row per norm, batch size and learning rate: the best validation accuracy of an epoch, mean over seeds."""
    rows = []
    for name, cell in list_cells(params).items():
        rows.append((*cell, read_json(f"metrics/{STUDY}/train/{name}.json")["val_accuracy"]))
    return pd.DataFrame(rows, columns=["norm", "batch_size", "lr", "val_accuracy"])


def choose_best(table: pd.DataFrame) -> pd.DataFrame:
    """The learning rate with the best validation accuracy, for each norm and batch size."""
    return table.loc[table.groupby(["norm", "batch_size"], sort=False)["val_accuracy"].idxmax()]


def choose_common_lrs(table: pd.DataFrame) -> dict[int, float]:
    """The learning rate whose worst norm is best, for each batch size: a recipe that is to serve all norms."""
    worst = table.groupby(["batch_size", "lr"])["val_accuracy"].min()
    return {int(size): float(own.idxmax()[1]) for size, own in worst.groupby("batch_size")}


def draw_sweep(table: pd.DataFrame, caption: str) -> Figure:
    """A panel per norm: validation accuracy over the learning rate, a line per batch size."""
    norms, sizes = table["norm"].unique(), sorted(table["batch_size"].unique())
    colors = dict(zip(sizes, colormaps["viridis"](np.linspace(0, 0.9, len(sizes))), strict=True))
    figure, panels = plt.subplots(1, len(norms), figsize=(3.4 * len(norms), 3.6), sharey=True, squeeze=False)
    for axes, norm in zip(panels.flat, norms, strict=True):
        for size, own in table[table["norm"] == norm].groupby("batch_size"):
            axes.plot(own["lr"], own["val_accuracy"], "o-", color=colors[size], label=f"batches of {size}")
        axes.set(xscale="log", xlabel="peak learning rate", title=name_variant(norm))
        axes.set_xticks(table["lr"].unique(), [f"{lr:g}" for lr in table["lr"].unique()])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    panels[0, 0].set_ylabel("best validation accuracy")
    panels[0, 0].legend(fontsize=8)
    add_caption(figure, caption)
    return figure


def main(params: Params) -> None:
    table, study, recipe = tabulate_cells(params), params.small_cnn_sweep, params.small_cnn
    caption = (
        f"{count(study.epochs, 'epoch')} of {study.percent:g}% of the training images, "
        f"{OPTIMIZERS[recipe.optimizer]}; {count(len(study.seeds), 'seed')}"
    )
    save_figure(draw_sweep(table, caption), f"plots/{STUDY}/sweep.png")
    write_csv(f"plots/{STUDY}/sweep.csv", table)
    best = choose_best(table).itertuples()
    summary = {f"val_accuracy_{row.norm}_{row.batch_size}": row.val_accuracy for row in best}
    summary |= {f"common_lr_{size}": lr for size, lr in choose_common_lrs(table).items()}
    write_json(f"metrics/{STUDY}/summary.json", {"seeds": len(study.seeds)} | summary)


if __name__ == "__main__":
    run_stage(main, timing=f"{STUDY}/report")
