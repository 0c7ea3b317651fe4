"""What thresholds, batch sizes and placements do, as sentences that follow the data.

Most functions take what `summarize_runs` gives: a row per norm, variant and seed, accuracies in [0, 1].
"""

from pathlib import Path

import pandas as pd

from stages.models.configurations import label_of
from stages.reporting.phrases import join, signed
from stages.variants.variant_figures import PANELS, summarize_runs

BITES = 0.5  # share of the steps
UNCLIPPED = "none"


def mean_accuracies(runs: pd.DataFrame) -> pd.DataFrame:
    """Best validation accuracy in per cent, mean over seeds: a row per norm, a column per variant, in their order."""
    means = 100 * runs.groupby(["norm", "variant"], sort=False)["val_accuracy"].mean()
    return means.unstack("variant")[runs["variant"].unique()]


def spread_of_seeds(runs: pd.DataFrame) -> float:
    """The largest difference between two seeds of one norm and variant, in points."""
    groups = 100 * runs.groupby(["norm", "variant"])["val_accuracy"].agg(["min", "max"])
    return float((groups["max"] - groups["min"]).max())


def describe_bite(runs: pd.DataFrame) -> str:
    """Up to which threshold half of the steps are clipped, and what that does to Adam's steps."""
    clipped = runs[runs["variant"] != UNCLIPPED].groupby(["norm", "variant"], sort=False)["clip_fraction"].mean()
    parts = []
    for norm in runs["norm"].unique():
        biting = [variant for variant, share in clipped[norm].items() if share >= BITES]
        parts.append(f"{max(biting, key=float) if biting else 'none of them'} for {label_of(norm)}")
    ratios = runs.groupby(["norm", "variant"])["update_ratio"].mean().unstack("variant")
    change = (ratios.drop(columns=UNCLIPPED).div(ratios[UNCLIPPED], axis=0) - 1).abs().to_numpy().max()
    return (
        f"The largest threshold that clips at least half of the steps is {join(parts)}. However low it is, the "
        f"relative length of Adam's steps in FC1 stays within {100 * change:.0f}% of what it is without clipping."
    )


def describe_thresholds(runs: pd.DataFrame) -> str:
    """What clipping costs or gains in accuracy, beside what another seed does."""
    means = mean_accuracies(runs)
    effects = means.drop(columns=UNCLIPPED).sub(means[UNCLIPPED], axis=0).stack()
    (low_norm, low), (high_norm, high) = effects.idxmin(), effects.idxmax()
    return (
        f"Against no clipping the mean validation accuracy changes by {signed(effects.min())} points "
        f"({label_of(low_norm)} at {low}) to {signed(effects.max())} ({label_of(high_norm)} at {high}); two seeds of "
        f"one setting differ by up to {spread_of_seeds(runs):.2f}."
    )


def describe_batch_sizes(runs: pd.DataFrame) -> str:
    """Which norm leads at the smallest and at the largest batch, and how far each falls from its best."""
    means = mean_accuracies(runs)
    small, large = means.columns[0], means.columns[-1]
    leaders = {size: means[size].idxmax() for size in (small, large)}
    losses = [f"{means.loc[norm].max() - means.loc[norm, small]:.2f} for {label_of(norm)}" for norm in means.index]
    first = f"In batches of {small} {label_of(leaders[small])} has the highest mean validation accuracy"
    if leaders[small] == leaders[large]:
        where = f"{first}, as in batches of {large}"
    else:
        where = f"{first}, in batches of {large} {label_of(leaders[large])}"
    return f"{where}. At {small}, the points lost from each norm's best batch size are {join(losses)}."


def describe_placements(runs: pd.DataFrame) -> str:
    """What the norm gains on the map, needs both placements."""
    gains = mean_accuracies(runs).eval("spatial - vector")
    parts = [f"{signed(gain)} points for {label_of(norm)}" for norm, gain in gains.items()]
    return f"On the map instead of the pooled vector, the mean validation accuracy changes by {join(parts)}."


def describe_epsilon(table: pd.DataFrame) -> str:
    """What FRN makes of its epsilon on a pooled vector, from the rows per epoch of the study of placements."""
    learned = table[table["learned_eps"].notna()]
    by_epoch = learned.groupby("epoch")["learned_eps"].mean()
    start, end = (100 * learned[name].mean() for name in ("saturated_at_start", "saturated"))
    return (
        f"On a pooled vector FRN raises its epsilon from {by_epoch.iloc[0]:.1g} to {by_epoch.iloc[-1]:.2g} (root mean "
        f"square over units, at the last epoch's start), and the share of saturated units goes from {start:.0f}% to "
        f"{end:.0f}%."
    )


def describe_variants(root: Path = Path()) -> dict[str, str]:
    """All that is to say of the three studies, from their result files; empty where a study lacks what it is about."""
    tables = {study: pd.read_csv(root / f"plots/variants/{study}.csv", dtype={"variant": str}) for study in PANELS}
    runs = {study: summarize_runs(table) for study, table in tables.items()}
    learns = tables["placements"]["learned_eps"].notna().any()
    compares = {"spatial", "vector"} <= set(runs["placements"]["variant"])
    return {
        "bite": describe_bite(runs["thresholds"]),
        "thresholds": describe_thresholds(runs["thresholds"]),
        "batch_sizes": describe_batch_sizes(runs["batch_sizes"]),
        "placements": describe_placements(runs["placements"]) if compares else "",
        "epsilon": describe_epsilon(tables["placements"]) if learns else "",
    }
