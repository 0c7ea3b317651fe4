import gc
import itertools
import math

import numpy as np
import pytest

from stages.lib.statistics import (
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


def enumerated_p(differences):
    """The definition, written out."""
    observed = abs(np.mean(differences))
    means = [np.mean(np.multiply(signs, differences)) for signs in itertools.product([1, -1], repeat=len(differences))]
    return np.mean(np.abs(means) >= observed - 1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_the_sign_flip_test_enumerates_all_signs(rng, n):
    for shift in (0, 0.5, 5):
        differences = rng.normal(shift, 1, n)
        assert sign_flip_p(differences) == pytest.approx(enumerated_p(differences))


@pytest.mark.parametrize("pairs", [1, 3, 6])
def test_the_smallest_p_is_reached_by_differences_of_one_sign(pairs):
    assert sign_flip_p(np.arange(1, pairs + 1)) == pytest.approx(smallest_p(pairs))


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


def test_without_an_effect_the_procedure_rejects_at_its_nominal_rate_and_finds_a_large_one(rng, monkeypatch):
    """Families of three contrasts of eight pairs: without an effect, some rejection in at most 5% of the families."""
    monkeypatch.setattr(gc, "collect", lambda: 0)  # statsmodels calls it in every adjustment: 0.3 s in a large process

    def reject(mean, families):
        p_values = [[sign_flip_p(rng.normal(mean, 1, 8)) for _ in range(3)] for _ in range(families)]
        return np.array([holm(family) < ALPHA for family in p_values])

    # Eight pairs can reject at 2/2^8 and, as 3 x 4/2^8 < ALPHA, at 4/2^8: in about 3 x 4/2^8 = 4.7% of the families.
    assert 0.027 <= reject(0, 1000).any(axis=1).mean() <= 0.067  # 3 standard errors
    assert reject(3, 50).all(axis=1).mean() > 0.9


def test_a_family_is_adjusted_together():
    family = compare({"a": [1, 2, 3, 4, 5, 6], "b": [1, -1, 2, -2, 3, -3.5], "c": [2, 2, 2]})
    assert family["a"]["p"] == pytest.approx(2 / 2**6) and family["a"]["p_adjusted"] == pytest.approx(6 / 2**6)
    assert family["a"]["mean"] == 3.5 and 1 <= family["a"]["low"] < 3.5 < family["a"]["high"] <= 6
    assert family["c"]["smallest_effect"] is None and family["b"]["smallest_effect"] > 0


def test_the_smallest_effect_is_found_as_often_as_promised(rng):
    """The t-based size, checked by simulating the permutation test at that effect."""
    unit = np.array([1.0, -1.0] * 5) / np.std([1.0, -1.0] * 5, ddof=1)
    effect = smallest_effect(unit)
    found = np.mean([sign_flip_p(rng.normal(effect, 1, 10)) < ALPHA for _ in range(200)])
    assert 0.7 <= found <= 0.9
    assert smallest_effect([0.1, 0.2, 0.3]) is None
