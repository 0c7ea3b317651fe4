"""Curvature of the validation loss over one configuration's trained heads: `python -m stages.curvature frn clip`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import torch

from stages.core.checkpoints import load_checkpoint
from stages.core.device import choose_dtype, take_device
from stages.core.files import write_csv, write_json
from stages.core.params import Curvature, Params
from stages.core.stage import run_stage
from stages.data.feature_cache import FeatureCache
from stages.measure.head_curvature import HeadCurvature, measure_pair, summarize_curvature, tabulate_grid
from stages.measure.hessian import extreme_eigenvalues, flatten, move_head, spread, weights_of
from stages.measure.loss_surface import random_direction
from stages.models.configurations import make_key
from stages.models.transfer_model import TransferModel, activate_in_batches, make_model, read_recipe, rebuild_model
from stages.training.evaluation import evaluate

Figures = dict[str, float]


@dataclass(frozen=True)
class Bench:
    """What trained heads are measured on, and by which settings."""

    features: torch.Tensor  # (N, H, W, C), stored
    labels: torch.Tensor  # int64 (N,)
    settings: Curvature

    @property
    def few(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The features and labels that grids are computed on."""
        return self.features[: self.settings.grid_images], self.labels[: self.settings.grid_images]

    def measure_seed(self, model: TransferModel, initial: torch.Tensor | None) -> tuple[Figures, pd.DataFrame | None]:
        """One seed's figures; with its initial weights also the spectral density, and the loss along some slices."""
        own = self.settings
        block = activate_in_batches(model, self.features)
        head = HeadCurvature(model.head, block, self.labels, own.eigenvalues, own.seed)
        figures = head.measure(own.probes, own.box, own.ball)
        for pair in range(own.pairs):
            directions = [random_direction(model, own.seed, 2 * pair + which) for which in (0, 1)]
            found = measure_pair(model, head.hessian, *self.few, *directions, own.span)
            figures |= {f"{name}_pair{pair}": value for name, value in found.items()}
        if initial is None:
            return figures, None
        density = head.tabulate_density(own.lanczos_steps, own.lanczos_repeats)
        return figures, pd.concat([density, head.tabulate_slices(initial)])

    def list_grid_jobs(self, model: TransferModel, grid: np.ndarray) -> list[Callable[[], np.ndarray]]:
        """A job per pair of steps along two random directions: the extreme eigenvalues there."""
        (features, labels), seed = self.few, self.settings.seed
        block = activate_in_batches(model, features)
        a, b = (flatten(random_direction(model, seed, which)) for which in (0, 1))

        def look(alpha: float, beta: float) -> np.ndarray:
            return extreme_eigenvalues(move_head(model.head, alpha * a + beta * b), block, labels, seed)

        return [partial(look, alpha, beta) for alpha, beta in product(grid.tolist(), repeat=2)]


def measure_gap(model: TransferModel, cache: FeatureCache, test_accuracy: float) -> float:
    """The generalization gap: accuracy on training images, without augmentation, less that on test images."""
    return evaluate(model, cache.features("train_eval"), cache.labels("train_eval"))["accuracy"] - test_accuracy


def main(params: Params, norm: str, mode: str) -> None:
    key, settings, device = make_key(norm, mode), params.curvature, take_device(params)
    cache, backbone = FeatureCache(), torch.load("models/backbone.pt", weights_only=True)
    features, labels = cache.features("val")[: settings.images], cache.labels("val")[: settings.images].to(device)
    bench, grid = Bench(features, labels, settings), np.linspace(-settings.span, settings.span, settings.grid_points)
    checkpoints = [load_checkpoint(f"models/{key}/seed{seed}.pt") for seed in params.seeds]
    models = [rebuild_model(checkpoint, backbone).to(device) for checkpoint in checkpoints]
    initial = weights_of(make_model(backbone, *read_recipe(checkpoints[0])).head).to(device)

    dtype = choose_dtype(params.train.precision, device)
    as_trained = [rebuild_model(checkpoint, backbone, dtype).to(device) for checkpoint in checkpoints]
    accuracies = [checkpoint["test_accuracy"] for checkpoint in checkpoints]
    count = len(models)
    jobs = [partial(bench.measure_seed, model, None if k else initial) for k, model in enumerate(models)]
    jobs += [partial(measure_gap, model, cache, test) for model, test in zip(as_trained, accuracies, strict=True)]
    results = spread(jobs + bench.list_grid_jobs(models[0], grid), device)

    measured, gaps = results[:count], results[count : 2 * count]
    extremes = np.reshape(results[2 * count :], (len(grid), len(grid), 2))
    rows = [{"seed": s, "gap": gap} | own for s, gap, (own, _) in zip(params.seeds, gaps, measured, strict=True)]
    seeds, (_, pictures) = pd.DataFrame(rows), measured[0]
    write_csv(f"plots/curvature/{key}.csv", seeds, "%.6g")
    write_csv(f"plots/curvature_details/{key}.csv", pd.concat([pictures, tabulate_grid(grid, extremes)]), "%.6g")
    metrics = summarize_curvature(seeds, extremes)
    write_json(f"metrics/curvature/{key}.json", {"images": len(labels)} | metrics)
    print(f"{key}: eigenvalues from {metrics['lambda_min']:.3f} to {metrics['lambda_max']:.3f}")


if __name__ == "__main__":
    run_stage(main, "norm", "mode", timing="curvature-{}-{}")
