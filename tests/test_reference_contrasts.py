import numpy as np
import pytest
from scipy.stats import binomtest

from stages.measure.reference_contrasts import compare_with_first
from stages.training.predictions import Predictions

IMAGES = 200


def predict(right: np.ndarray) -> Predictions:
    """Predictions (seeds, N) that are right where `right` is true; every label is 0."""
    probabilities = np.zeros((*right.shape, 10), np.float32)
    probabilities[..., 0], probabilities[..., 1] = right, ~right
    return Predictions(np.arange(len(right)), np.zeros(right.shape[1], np.int64), probabilities)


def test_a_difference_is_tested_for_each_seed_against_the_first_variant():
    first = np.ones((2, IMAGES), bool)
    first[:, :50] = False
    better = first.copy()
    better[0, :8] = True  # seed 0: right on 8 more images, p = 2 / 2^8; seed 1: on 5 more, p = 2 / 2^5
    better[1, :5] = True
    other = first.copy()
    other[:, [0, -1]] = [True, False]  # as accurate, on other images
    table = compare_with_first({"plain": predict(first), "better": predict(better), "other": predict(other)})
    assert table["variant"].tolist() == ["better", "other"] and table["seeds"].tolist() == [2, 2]
    assert table["difference"].tolist() == [pytest.approx(100 * 6.5 / IMAGES), 0]
    assert binomtest(8, 8).pvalue * 2 < 0.05 < binomtest(5, 5).pvalue * 2  # Holm: doubled, being two tests
    assert table["seeds_significant"].tolist() == [1, 0]
    better_row = table.iloc[0]
    assert better_row["low"] < better_row["difference"] < better_row["high"]


def test_a_single_variant_has_nothing_to_be_compared_with():
    assert compare_with_first({"plain": predict(np.ones((1, IMAGES), bool))}).empty
