"""The contrasts that the study is about, tested over seeds and over test images."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd

from stages.measure.paired_tests import compare, holm, image_interval, mcnemar_p
from stages.models.configurations import MODES, label_of
from stages.training.predictions import Predictions

Contrast = tuple[str, str, str, str]  # family, its title, and the two configurations: first less second


def list_contrasts(norms: list[str]) -> Iterator[Contrast]:
    """Clipping for each norm, then each pair of norms, without and with clipping."""
    for norm in norms:
        yield "clipping", f"{label_of(norm)}: clipped - no clipping", f"{norm}-clip", f"{norm}-noclip"
    for mode in MODES:
        for first, second in combinations(norms, 2):
            yield (
                "norms",
                f"{label_of(first)} - {label_of(second)}, {MODES[mode]}",
                f"{first}-{mode}",
                f"{second}-{mode}",
            )


def image_differences(predictions: dict[str, Predictions], first: str, second: str) -> np.ndarray:
    """100 where only `first` is right, -100 where only `second` is, else 0: (seeds, N), whose means are points."""
    return 100.0 * (predictions[first].correct.astype(int) - predictions[second].correct)


def compare_over_seeds(predictions: dict[str, Predictions], norms: list[str]) -> pd.DataFrame:
    """One row per contrast, effects in points of test accuracy (100 times the difference of shares).

    `p` is the exact sign-flip test over seeds and `p_adjusted` Holm's correction within the contrast's family; `low`
    and `high` are the bootstrap interval over seeds, `image_low` and `image_high` the interval over test images for
    these very models; `smallest_effect` is what so many seeds would show with 80% power.
    """
    rows = []
    contrasts = list(list_contrasts(norms))
    for family in dict.fromkeys(contrast[0] for contrast in contrasts):
        members = [contrast for contrast in contrasts if contrast[0] == family]
        images = {title: image_differences(predictions, first, second) for _, title, first, second in members}
        image = 100 / next(iter(images.values())).shape[1]  # one image's share of the test set, in points
        compared = compare({title: difference.mean(1) for title, difference in images.items()}, image)
        for _, title, first, second in members:
            low, high = image_interval(images[title].mean(0))
            row = {"family": family, "contrast": title, "first": first, "second": second, **compared[title]}
            rows.append(row | {"image_low": low, "image_high": high})
    return pd.DataFrame(rows)


def compare_over_images(predictions: dict[str, Predictions], norms: list[str]) -> pd.DataFrame:
    """McNemar's exact test of every contrast on every seed; `p_adjusted` is Holm's over a family's tests.

    `only_first` and `only_second` count the test images that one of the two models alone classifies correctly.
    """
    rows = []
    for family, title, first, second in list_contrasts(norms):
        a, b = predictions[first], predictions[second]
        for seed, right_a, right_b in zip(a.seeds.tolist(), a.correct, b.correct, strict=True):
            counts = {"only_first": int((right_a & ~right_b).sum()), "only_second": int((~right_a & right_b).sum())}
            rows.append(
                {"family": family, "contrast": title, "seed": seed} | counts | {"p": mcnemar_p(right_a, right_b)}
            )
    table = pd.DataFrame(rows)
    table["p_adjusted"] = table.groupby("family")["p"].transform(holm)
    return table
