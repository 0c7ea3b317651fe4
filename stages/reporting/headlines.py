"""The study in two small files: the curves of all configurations as one table, and the headline metrics."""

from collections.abc import Mapping, Sequence

import pandas as pd


def combine_curves(keys: Sequence[str]) -> pd.DataFrame:
    """The configurations' curves one after the other, digit for digit, with a first column `configuration`."""
    tables = {key: pd.read_csv(f"plots/curves/{key}.csv", dtype=str, keep_default_na=False) for key in keys}
    return pd.concat(tables, names=["configuration"]).reset_index("configuration")


def headline_metrics(metrics: Mapping[str, dict]) -> dict[str, float]:
    """Mean test accuracy of every configuration, in [0, 1]."""
    return {key: values["test_accuracy"] for key, values in metrics.items()}
