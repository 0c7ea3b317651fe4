"""Which differences are real: paired tests over seeds and over test images, and what they could have shown.

Configurations are paired: one seed means the same split, batches, augmentation and initial FC weights in all of them.
So a contrast is a list of differences, one per seed, and every test here is a test of such differences.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap, norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

ALPHA = 0.05  # two-sided level of every test
POWER = 0.8  # chance of finding an effect of the size that `smallest_effect` names
RESAMPLES = 10_000


def smallest_p(pairs: int) -> float:
    """The smallest two-sided p-value that a sign-flip test on `pairs` paired differences can reach: 2 / 2^n."""
    return min(1.0, 2 / 2**pairs)


def sign_flip_p(differences: Sequence[float], unit: float) -> float:
    """Two-sided p of the exact sign-flip permutation test that paired differences, multiples of `unit`, have mean zero.

    All 2^n assignments of signs count (Fisher 1935, section 21), so n differences can reach 2 / 2^n at best. Their sums
    are whole numbers of units, whose distribution grows by one difference at a time (Pagano & Tritchler 1983): the cost
    is n times the sum of the sizes, without rounding up to n = 53.
    """
    steps = np.rint(np.asarray(differences) / unit).astype(int)
    shares = np.ones(1)  # of the assignments, by the sum of the steps whose sign is positive
    for step in np.abs(steps):
        shares = (np.pad(shares, (0, step)) + np.pad(shares, (step, 0))) / 2
    sums = 2 * np.arange(len(shares)) - np.abs(steps).sum()
    return float(shares[np.abs(sums) >= abs(steps.sum())].sum())


def mean_interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95% bootstrap interval of the mean of paired differences (Efron's percentile method, 10,000 resamples).

    With a handful of seeds it is too narrow (it cannot leave the range of what was seen); read it as a description.
    """
    values = np.asarray(differences)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(seed))
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def image_interval(differences: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean of per-image differences (N,), N large: what another test set of this size would vary.

    By the normal approximation. It says nothing of other seeds: the models are taken as they are.
    """
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    low, high = norm.interval(0.95, differences.mean(), differences.std(ddof=1) / np.sqrt(len(differences)))
    return float(low), float(high)


def mcnemar_p(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided p that two classifiers err equally often on the same images (McNemar 1947; Dietterich 1998).

    Both are boolean (N,). Only images on which exactly one of the two is right count: a binomial test on their number.
    """
    table = [[np.sum(a & b) for b in (correct_b, ~correct_b)] for a in (correct_a, ~correct_a)]
    return float(mcnemar(table, exact=True).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's (1979) step-down adjustment for a family of tests; reject where the result is below ALPHA."""
    return multipletests(p_values, method="holm")[1]


def smallest_effect(differences: Sequence[float]) -> float | None:
    """The mean difference that this many pairs, spreading as these do, would show with probability POWER.

    At level ALPHA, from the noncentral t distribution (Cohen 1988), an approximation to the permutation test. None
    where the permutation test cannot reach ALPHA at all, however large the effect.
    """
    if smallest_p(len(differences)) > ALPHA:
        return None
    standardized = TTestPower().solve_power(nobs=len(differences), alpha=ALPHA, power=POWER)
    return float(standardized * np.std(differences, ddof=1))


def compare(differences: dict[str, Sequence[float]], unit: float) -> dict[str, dict]:
    """One family of contrasts, name -> paired multiples of `unit`: mean, interval, p and p adjusted over the family."""
    p_values = {name: sign_flip_p(values, unit) for name, values in differences.items()}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    results = {}
    for name, values in differences.items():
        low, high = mean_interval(values)
        results[name] = {
            "mean": float(np.mean(values)),
            "low": low,
            "high": high,
            "p": p_values[name],
            "p_adjusted": float(adjusted[name]),
            "smallest_effect": smallest_effect(values),
        }
    return results
