"""The curvature of all configurations, read back as tables, and what of it goes along with the generalization gap."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr

from stages.core.files import StageError
from stages.measure.paired_tests import ALPHA, holm
from stages.models.configurations import list_keys, split_key
from stages.reporting.captions import read_caption

MEASURES = {
    "lambda_max": "largest eigenvalue",
    "negative": "-(lowest eigenvalue)",
    "ratio": "|lowest / largest eigenvalue|",
    "trace": "trace",
    "sharpness_box": "sharpness in the box",
    "sharpness_ball": "sharpness in the ball",
    "curvature": "curvature along random directions",
    "flat_share": "flat share of random planes",
}


@dataclass(frozen=True)
class CurvatureResults:
    """Tables by configuration, in the order of `keys`: one row per seed, and the first seed's tidy details."""

    norms: list[str]
    keys: list[str]
    seeds: dict[str, pd.DataFrame]
    details: dict[str, pd.DataFrame]
    caption: str

    @property
    def models(self) -> pd.DataFrame:
        """One row per configuration and seed: key, norm, gap and MEASURES, those of random directions averaged."""
        models = pd.concat([frame.assign(key=key, norm=split_key(key)[0]) for key, frame in self.seeds.items()])
        pairs = {name: models.filter(like=f"{name}_pair").mean(axis=1) for name in ("curvature", "flat_share")}
        return models.assign(negative=-models["lambda_min"], **pairs).reset_index(drop=True)

    def detail(self, key: str, measure: str) -> pd.DataFrame:
        return self.details[key][self.details[key]["measure"] == measure]

    def grid(self, key: str, measure: str) -> pd.DataFrame:
        """lambda_min or lambda_max, one row per alpha, one column per beta."""
        return self.detail(key, measure).pivot(index="x", columns="y", values="value")


def load_curvature(norms: list[str]) -> CurvatureResults:
    """Raises StageError, naming the file, if a configuration has not been measured yet."""
    keys = list_keys(norms)
    try:
        seeds = {key: pd.read_csv(f"plots/curvature/{key}.csv") for key in keys}
        details = {key: pd.read_csv(f"plots/curvature_details/{key}.csv") for key in keys}
    except FileNotFoundError as error:
        raise StageError(f"{error.filename} does not exist; run `dvc repro`, which makes it first") from None
    return CurvatureResults(norms, keys, seeds, details, read_caption(len(next(iter(seeds.values())))))


def rank_correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Spearman's rho, its 95% interval and two-sided p.

    The interval is Fisher's z with standard error sqrt((1 + rho^2 / 2) / (n - 3)) (Bonett & Wright 2000, Psychometrika
    65:23). With fewer than four pairs, or a side that is constant, nothing can be said: 0, -1, 1 and 1.
    """
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, -1.0, 1.0, 1.0
    rho, p = spearmanr(x, y)
    with np.errstate(divide="ignore"):
        z = np.arctanh(rho)
    reach = norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    return float(rho), float(np.tanh(z - reach)), float(np.tanh(z + reach)), float(p)


def correlate_with_gap(models: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of every measure with the generalization gap: over all models, and within norms.

    Within norms, measure and gap are taken less their norm's mean, so that a difference between norms, of which there
    are only as many as norms, does not count once per model. `p_adjusted` is Holm's over the measures of a scope. Seeds
    of one configuration are not independent of each other as p takes them to be: over all models it is too small.
    """
    columns = ["gap", *MEASURES]
    within = models[columns] - models.groupby("norm")[columns].transform("mean")
    rows = []
    for scope, frame in {"all models": models[columns], "within norms": within}.items():
        found = [rank_correlation(frame[measure].to_numpy(), frame["gap"].to_numpy()) for measure in MEASURES]
        adjusted = holm([p for *_, p in found])
        for measure, (rho, low, high, p), p_adjusted in zip(MEASURES, found, adjusted, strict=True):
            row = {"scope": scope, "measure": measure, "title": f"{MEASURES[measure]}, {scope}", "models": len(models)}
            rows.append(row | {"rho": rho, "low": low, "high": high, "p": p, "p_adjusted": p_adjusted})
    return pd.DataFrame(rows)


def summarize_correlations(table: pd.DataFrame) -> dict[str, float]:
    """rho of every measure over all models, the same within norms, and how many are significant in either scope."""
    metrics: dict[str, float] = {"models": int(table["models"].iloc[0])}
    for scope, rows in table.groupby("scope", sort=False):
        prefix = scope.split()[0]
        metrics |= {f"{prefix}_{row.measure}": row.rho for row in rows.itertuples()}
        metrics[f"{prefix}_significant"] = int((rows["p_adjusted"] < ALPHA).sum())
    return metrics
