"""The study in two small files: the curves of all configurations as one table, and the headline metrics."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.colors import to_hex, to_rgb

from stages.models.configurations import color_of, name_of, split_key

PALE = 0.5  # share of white in the colour of a clipped configuration


def shade_of(key: str) -> str:
    """A configuration's colour in charts where dashes mean something else: its norm's, paler where it is clipped."""
    norm, mode = split_key(key)
    white = PALE if mode == "clip" else 0
    return to_hex([white + (1 - white) * part for part in to_rgb(color_of(norm))])


def combine_curves(keys: Sequence[str]) -> pd.DataFrame:
    """The configurations' curves one after the other, digit for digit, after columns that say whose they are.

    These are the configuration's name in files, its `label` as a reader sees it, and the `color` that it is drawn in.
    """
    tables = []
    for key in keys:
        own = pd.read_csv(f"plots/curves/{key}.csv", dtype=str, keep_default_na=False)
        tables.append(pd.DataFrame({"configuration": key, "label": name_of(key), "color": shade_of(key)} | dict(own)))
    return pd.concat(tables)


def headline_metrics(metrics: Mapping[str, dict]) -> dict[str, float]:
    """Mean test accuracy of every configuration, in [0, 1]."""
    return {key: values["test_accuracy"] for key, values in metrics.items()}
