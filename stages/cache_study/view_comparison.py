"""The comparison of numbers of augmented views, summed up and drawn."""

from itertools import cycle

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from stages.models.configurations import label_of
from stages.reporting.captions import add_caption
from stages.reporting.plotting import SEQUENCE


def best_accuracies(curves: pd.DataFrame) -> pd.DataFrame:
    """Each run's best validation accuracy: a row per seed, a column per number of views."""
    return curves.groupby(["seed", "views"])["val_accuracy"].max().unstack()


def summarize_views(curves: pd.DataFrame) -> dict[str, float | None]:
    """Per number of views: mean and standard deviation over seeds of the best validation accuracy, in [0, 1], and the
    mean paired difference from the largest number of views (`below_most`: positive means worse)."""
    best = best_accuracies(curves)
    summary: dict[str, float | None] = {"seeds": len(best)}
    for views, values in best.items():
        spread = values.std() if len(best) > 1 else None
        summary |= {f"val_accuracy_views{views}": values.mean(), f"val_accuracy_views{views}_std": spread}
        summary[f"below_most_views{views}"] = (best[best.columns.max()] - values).mean()
    return summary


def draw_views(curves: pd.DataFrame, norm: str, about: dict) -> Figure:
    """Validation accuracy over epochs for every number of views, and the best of every seed."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, width_ratios=[3, 2])
    best = best_accuracies(curves)
    for position, (views, color) in enumerate(zip(best, cycle(SEQUENCE), strict=False)):
        groups = curves[curves["views"] == views].groupby("epoch")["val_accuracy"]
        mean = groups.mean()
        left.plot(mean.index, mean, color=color, label=f"{views} view{'s' if views > 1 else ''}")
        left.fill_between(mean.index, groups.min(), groups.max(), color=color, alpha=0.12, lw=0)
        right.plot([position] * len(best), best[views], "o", color=color, alpha=0.5, ms=6, mew=0)
        right.plot([position - 0.25, position + 0.25], [best[views].mean()] * 2, color=color, lw=2.5)
    left.set(xlabel="epoch", ylabel="validation accuracy")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.legend()
    right.set_xticks(range(best.shape[1]), best.columns)
    right.set_xlabel("augmented views; best epoch of each seed")
    add_caption(
        figure,
        f"{label_of(norm)} head, no clipping; MobileNetV2 weights: {about['weights']}, {about['image_size']} px; "
        f"{len(best)} seed{'s' if len(best) > 1 else ''}\nLine and bar: mean over seeds, band: their range",
    )
    return figure
