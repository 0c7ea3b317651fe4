"""Curvature of the validation loss over one configuration's trained heads: `python -m stages.curvature frn clip`."""

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
from stages.measure.head_curvature import HeadCurvature, measure_pair, summarize, tabulate_grid
from stages.measure.hessian import extreme_eigenvalues, flatten, move_head, pool_block, spread, weights_of
from stages.measure.loss_surface import random_direction
from stages.models.configurations import make_key
from stages.models.transfer_model import TransferModel, make_model_from_settings, rebuild_model
from stages.training.evaluation import evaluate


def measure_seed(
    model: TransferModel, features: torch.Tensor, labels: torch.Tensor, settings: Curvature
) -> tuple[dict[str, float], HeadCurvature]:
    """One seed's figures, and what the pictures are made of."""
    few = settings.grid_images
    head = HeadCurvature(model.head, pool_block(model, features), labels, settings.eigenvalues, settings.seed)
    figures = head.measure(settings.probes, settings.box, settings.ball)
    for pair in range(settings.pairs):
        directions = [random_direction(model, settings.seed, 2 * pair + which) for which in (0, 1)]
        found = measure_pair(model, head.hessian, features[:few], labels[:few], *directions, settings.span)
        figures |= {f"{name}_pair{pair}": value for name, value in found.items()}
    return figures, head


def main(params: Params, norm: str, mode: str) -> None:
    key, settings = make_key(norm, mode), params.curvature
    backbone = torch.load("models/backbone.pt", weights_only=True)
    device = take_device(params)
    dtype = choose_dtype(params.train.precision, device)
    cache = FeatureCache()
    features, labels = cache.features("val")[: settings.images], cache.labels("val")[: settings.images].to(device)
    training = cache.features("train_eval"), cache.labels("train_eval")
    checkpoints = [load_checkpoint(f"models/{key}/seed{seed}.pt") for seed in params.seeds]
    models = [rebuild_model(checkpoint, backbone).to(device) for checkpoint in checkpoints]
    as_trained = [rebuild_model(checkpoint, backbone, dtype).to(device) for checkpoint in checkpoints]
    initial = weights_of(make_model_from_settings(checkpoints[0]["params"], backbone).head).to(device)

    def study(index: int) -> tuple[dict[str, float], pd.DataFrame | None]:
        figures, head = measure_seed(models[index], features, labels, settings)
        train = evaluate(as_trained[index], *training)["accuracy"]
        row = {"seed": params.seeds[index], "gap": train - checkpoints[index]["test_accuracy"]} | figures
        if index > 0:
            return row, None
        density = head.tabulate_density(settings.lanczos_steps, settings.lanczos_repeats)
        return row, pd.concat([density, head.tabulate_slices(initial)])

    block = pool_block(models[0], features[: settings.grid_images])
    a, b = (flatten(random_direction(models[0], settings.seed, which)) for which in (0, 1))
    grid = np.linspace(-settings.span, settings.span, settings.grid_points)

    def look(alpha: float, beta: float) -> np.ndarray:
        head = move_head(models[0].head, alpha * a + beta * b)
        return extreme_eigenvalues(head, block, labels[: settings.grid_images], settings.seed)

    jobs = [partial(study, index) for index in range(len(models))]
    jobs += [partial(look, alpha, beta) for alpha, beta in product(grid.tolist(), repeat=2)]
    results = spread(jobs, device)
    rows, pictures = zip(*results[: len(models)], strict=True)
    extremes = np.reshape(results[len(models) :], (len(grid), len(grid), 2))
    seeds = pd.DataFrame(rows)
    details = pd.concat([pictures[0], tabulate_grid(grid, extremes)])
    write_csv(f"plots/curvature/{key}.csv", seeds, "%.6g")
    write_csv(f"plots/curvature_details/{key}.csv", details, "%.6g")
    metrics = summarize(seeds, extremes)
    write_json(f"metrics/curvature/{key}.json", {"images": len(labels)} | metrics)
    print(f"{key}: eigenvalues from {metrics['lambda_min']:.3f} to {metrics['lambda_max']:.3f}")


if __name__ == "__main__":
    run_stage(main, "norm", "mode", timing="curvature-{}-{}")
