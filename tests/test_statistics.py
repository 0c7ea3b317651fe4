import gc
import itertools
import json
import math
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, permutation_test

from stages.measure.paired_tests import (
    ALPHA,
    compare,
    holm,
    image_interval,
    mcnemar_p,
    mean_interval,
    sign_flip_p,
    smallest_effect,
    smallest_p,
)
from stages.reporting.results import test_accuracies as accuracies_of_seeds


def enumerated_p(differences):
    """The definition, written out, for whole numbers."""
    sums = [np.dot(signs, differences) for signs in itertools.product([1, -1], repeat=len(differences))]
    return np.mean(np.abs(sums) >= abs(sum(differences)))


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9, 12])
def test_the_sign_flip_test_enumerates_all_signs(rng, n):
    """Differences of a hundredth of a point, as ten thousand test images have; few apart, many are tied or zero."""
    for spread in (1, 3, 500):
        for shift in (0, 2, 40):
            counts = rng.integers(-spread, spread + 1, n) + shift
            assert sign_flip_p(counts / 100, 0.01) == enumerated_p(counts)


@pytest.mark.parametrize("n", [2, 5, 8, 12])
def test_the_sign_flip_test_is_scipys(rng, n):
    for shift in (3, 30, 300):
        counts = rng.integers(-50, 51, n) + shift
        scipys = permutation_test((counts / 100,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_p(counts / 100, 0.01) == scipys.pvalue


@pytest.mark.parametrize(("n", "right"), [(30, 30), (30, 22), (53, 31), (200, 100), (200, 118), (1000, 540)])
def test_any_number_of_equal_sizes_is_a_binomial_test(n, right):
    """Of differences of one size, as many as 1,000 seeds: the signs are fair coins (rounded beyond 53)."""
    differences = np.where(np.arange(n) < right, 0.37, -0.37)
    assert sign_flip_p(differences, 0.01) == pytest.approx(binomtest(right, n).pvalue, rel=1e-11)


def test_thirty_seeds_are_as_cheap_as_three_and_zeros_say_nothing(rng):
    counts = rng.integers(-120, 121, 29)
    tracemalloc.start()
    started = time.process_time()
    p = sign_flip_p(counts / 100, 0.01)
    assert time.process_time() - started < 2 and tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert sign_flip_p(np.append(counts, 0) / 100, 0.01) == p
    assert sign_flip_p(np.zeros(30), 0.01) == 1
    assert sign_flip_p(np.arange(1, 31) / 100, 0.01) == smallest_p(30) == 2 / 2**30


@pytest.mark.parametrize("study", [".", "reference"])
def test_the_committed_p_values_are_those_of_the_committed_accuracies(committed, study):
    """By enumeration: 2^3 and 2^8 assignments of signs."""
    table = pd.read_csv(committed / "plots" / study / "statistics/seeds.csv")
    for row in table.itertuples():
        first, second = (
            accuracies_of_seeds(json.loads((committed / f"metrics/{study}/train/{key}.json").read_text()))
            for key in (row.first, row.second)
        )
        counts = np.rint(10_000 * (first - second)).astype(int)
        assert row.p == pytest.approx(enumerated_p(counts), rel=1e-5)
        assert sign_flip_p(100 * (first - second), 0.01) == enumerated_p(counts)


@pytest.mark.parametrize("pairs", [1, 3, 6])
def test_the_smallest_p_is_reached_by_differences_of_one_sign(pairs):
    assert sign_flip_p(np.arange(1, pairs + 1), 1) == pytest.approx(smallest_p(pairs))


def test_mcnemar_is_the_binomial_test_on_the_images_that_only_one_gets_right():
    only_a, only_b, both, neither = 12, 4, 30, 10
    a = np.array([True] * (only_a + both) + [False] * (only_b + neither))
    b = np.array([False] * only_a + [True] * (both + only_b) + [False] * neither)
    tail = sum(math.comb(16, k) for k in range(only_b + 1)) / 2**16
    assert mcnemar_p(a, b) == pytest.approx(2 * tail) == mcnemar_p(b, a)
    assert mcnemar_p(a, a) == 1


def test_holm_is_the_textbooks_step_down():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1.0, 1.0])


def test_the_interval_covers_the_mean_about_as_often_as_it_says(rng):
    """With 40 pairs the percentile bootstrap is near its nominal 95%."""
    covered = [low <= 0.3 <= high for low, high in (mean_interval(rng.normal(0.3, 1, 40)) for _ in range(200))]
    assert 0.89 <= np.mean(covered) <= 0.99
    assert mean_interval([0.25, 0.25]) == (0.25, 0.25)


def test_the_image_interval_is_the_bootstraps(rng):
    differences = rng.choice([-100.0, 0.0, 100.0], 5000, p=[0.05, 0.88, 0.07])
    means = [rng.choice(differences, 5000).mean() for _ in range(2000)]
    np.testing.assert_allclose(image_interval(differences), np.quantile(means, [0.025, 0.975]), atol=0.1)
    assert image_interval(np.zeros(40)) == (0, 0), "two models that err alike"


def test_without_an_effect_the_procedure_rejects_at_its_nominal_rate_and_finds_a_large_one(rng, monkeypatch):
    """Families of three contrasts of eight pairs: without an effect, some rejection in at most 5% of the families."""
    monkeypatch.setattr(gc, "collect", lambda: 0)  # statsmodels calls it in every adjustment: 0.3 s in a large process

    def reject(mean, families):
        p_values = [[sign_flip_p(rng.normal(mean, 1, 8), 0.001) for _ in range(3)] for _ in range(families)]
        return np.array([holm(family) < ALPHA for family in p_values])

    # Eight pairs can reject at 2/2^8 and, as 3 x 4/2^8 < ALPHA, at 4/2^8: in about 3 x 4/2^8 = 4.7% of the families.
    assert 0.027 <= reject(0, 1000).any(axis=1).mean() <= 0.067  # 3 standard errors
    assert reject(3, 50).all(axis=1).mean() > 0.9


def test_a_family_is_adjusted_together():
    family = compare({"a": [1, 2, 3, 4, 5, 6], "b": [1, -1, 2, -2, 3, -3.5], "c": [2, 2, 2]}, 0.5)
    assert family["a"]["p"] == pytest.approx(2 / 2**6) and family["a"]["p_adjusted"] == pytest.approx(6 / 2**6)
    assert family["a"]["mean"] == 3.5 and 1 <= family["a"]["low"] < 3.5 < family["a"]["high"] <= 6
    assert family["c"]["smallest_effect"] is None and family["b"]["smallest_effect"] > 0


def test_the_smallest_effect_is_found_as_often_as_promised(rng):
    """The t-based size, checked by simulating the permutation test at that effect."""
    unit = np.array([1.0, -1.0] * 5) / np.std([1.0, -1.0] * 5, ddof=1)
    effect = smallest_effect(unit)
    found = np.mean([sign_flip_p(rng.normal(effect, 1, 10), 0.001) < ALPHA for _ in range(200)])
    assert 0.7 <= found <= 0.9
    assert smallest_effect([0.1, 0.2, 0.3]) is None
