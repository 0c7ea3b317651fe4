"""Every variant of a study against its first one, over test images and seed by seed."""

import numpy as np
import pandas as pd

from stages.measure.paired_tests import ALPHA, holm, image_interval, mcnemar_p
from stages.training.predictions import Predictions


def compare_with_first(found: dict[str, Predictions]) -> pd.DataFrame:
    """A row per variant but the first: points of test accuracy that it is above the first, mean over seeds.

    `low` and `high` are the 95% interval over test images for these very models; `seeds_significant` counts the seeds
    for which McNemar's exact test, corrected after Holm over the seed's variants, finds a difference.
    """
    (_, first), *others = found.items()
    seeds = range(len(first.seeds))
    p_values = np.array([[mcnemar_p(first.correct[k], own.correct[k]) for _, own in others] for k in seeds])
    significant = np.array([holm(own) < ALPHA for own in p_values]).sum(0) if others else []
    rows = []
    for (name, own), count in zip(others, significant, strict=True):
        differences = 100 * (own.correct.mean(0) - first.correct.mean(0))
        low, high = image_interval(differences)
        rows.append((name, differences.mean(), low, high, int(count), len(seeds)))
    return pd.DataFrame(rows, columns=["variant", "difference", "low", "high", "seeds_significant", "seeds"])
