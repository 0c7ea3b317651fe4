"""The six configurations' result files, read back as tables."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.core.files import StageError, read_json
from stages.measure.paired_tests import smallest_p
from stages.models.configurations import list_keys, name_of
from stages.reporting.captions import describe_study


def percent(metrics: dict, name: str) -> str:
    spread = metrics.get(f"{name}_std")
    return f"{100 * metrics[name]:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


COLUMNS = {
    "test (%)": lambda m: percent(m, "test_accuracy"),
    "validation (%)": lambda m: percent(m, "val_accuracy"),
    "test loss": lambda m: f"{m['test_loss']:.4f}",
    "best epoch": lambda m: f"{m['best_epoch']:.1f}",
    "gap (points)": lambda m: f"{100 * m['generalization_gap']:.2f}",
    "steps clipped (%)": lambda m: f"{100 * m['clip_fraction']:.0f}",
}


def tabulate(metrics: dict[str, dict]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the results table, one row per configuration: means ± standard deviations over seeds."""
    rows = [[name_of(key), *(column(values) for column in COLUMNS.values())] for key, values in metrics.items()]
    return ["", *COLUMNS], rows


@dataclass(frozen=True)
class Results:
    """What the figures and the summary are made of; every dict is keyed by configuration, in the order of `keys`."""

    norms: list[str]
    keys: list[str]
    metrics: dict[str, dict]
    curves: dict[str, pd.DataFrame]
    gradients: dict[str, pd.DataFrame]
    landscapes: dict[str, dict[str, np.ndarray]]
    weights: str
    image_size: int

    @property
    def seeds(self) -> list[int]:
        return sorted(next(iter(self.curves.values()))["seed"].unique().tolist())

    @property
    def caption(self) -> str:
        return describe_study({"weights": self.weights, "image_size": self.image_size}, len(self.seeds))


def test_accuracies(metrics: dict) -> np.ndarray:
    """One configuration's test accuracies, one per seed, in [0, 1]."""
    return np.array([value for name, value in metrics.items() if name.startswith("test_accuracy_seed")])


def clip_effect(metrics: dict[str, dict], norm: str) -> np.ndarray:
    """Test accuracy with clipping less that without, one difference per seed (same split, batches, initial FCs)."""
    return test_accuracies(metrics[f"{norm}-clip"]) - test_accuracies(metrics[f"{norm}-noclip"])


def load_results(norms: list[str]) -> Results:
    """Raises StageError, naming the file, if a configuration has no results yet."""
    keys = list_keys(norms)
    try:
        backbone = read_json("models/backbone.json")
        landscapes = {}
        for key in keys:
            with np.load(f"plots/landscapes/{key}.npz") as file:
                landscapes[key] = {name: file[name] for name in ("alphas", "betas", "loss", "accuracy")}
        return Results(
            norms=norms,
            keys=keys,
            metrics={key: read_json(f"metrics/train/{key}.json") for key in keys},
            curves={key: pd.read_csv(f"plots/curves/{key}.csv") for key in keys},
            gradients={key: pd.read_csv(f"plots/gradients/{key}.csv") for key in keys},
            landscapes=landscapes,
            weights=backbone["weights"],
            image_size=backbone["image_size"],
        )
    except FileNotFoundError as error:
        raise StageError(f"{error.filename} does not exist; run `dvc repro`, which makes it first") from None


def summarize_study(results: Results) -> dict:
    """The study in a few flat figures; accuracies and effects are shares, not percent."""
    means = {key: results.metrics[key]["test_accuracy"] for key in results.keys}
    best = max(means, key=means.get)
    summary = {
        "weights": results.weights,
        "image_size": results.image_size,
        "seeds": len(results.seeds),
        "best_configuration": best,
        "best_test_accuracy": means[best],
        "spread_of_means": max(means.values()) - min(means.values()),
        "smallest_p_possible": smallest_p(len(results.seeds)),
    }
    for norm in results.norms:
        effect = clip_effect(results.metrics, norm)
        summary |= {
            f"clip_effect_{norm}": effect.mean(),
            f"clip_effect_{norm}_min": effect.min(),
            f"clip_effect_{norm}_max": effect.max(),
        }
    return summary
