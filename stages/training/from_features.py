"""Train the end of MobileNetV2 and a head on stored features, for several seeds."""

from dataclasses import asdict
from pathlib import Path

import torch

from stages.core.device import choose_dtype
from stages.core.params import Train
from stages.data.feature_cache import FeatureCache, TrainingData
from stages.models.transfer_model import TransferModel, TransferRecipe, make_model
from stages.models.trunk import StateDict
from stages.training.loop import Run, train_runs


def make_optimizer(model: TransferModel, head_lr: float, block_lr: float) -> torch.optim.Adam:
    """Adam (Kingma & Ba 2015) with one learning rate for the head and one for MobileNetV2's blocks."""
    groups = [
        {"params": model.features.parameters(), "lr": block_lr},
        {"params": model.head.parameters(), "lr": head_lr},
    ]
    return torch.optim.Adam(groups, fused=True)


def make_recipe(train: Train, cache: FeatureCache, norm: str, clip: float | None, **changes) -> TransferRecipe:
    """Section `train` of params.yaml for one norm and threshold, with `changes`, on the features of a cache."""
    return TransferRecipe(**asdict(train) | cache.model_settings | {"norm": norm, "clip": clip} | changes)


def train_seeds(
    title: str,
    recipe: TransferRecipe,
    seeds: list[int],
    backbone: StateDict,
    data: TrainingData,
    states: Path,
    device: torch.device,
) -> tuple[list[Run], dict]:
    """Train one configuration for every seed; returns the finished runs and what wall-clock figures there are.

    Raises StageError as `train_runs` does.
    """
    dtype = choose_dtype(recipe.precision, device)
    products, runs = str(dtype).removeprefix("torch."), []
    for seed in seeds:
        model = make_model(backbone, recipe, seed, dtype).to(device)
        runs.append(Run(seed, model, make_optimizer(model, recipe.head_lr, recipe.block_lr)))
    timing = train_runs(title, runs, data, recipe.epochs, recipe.batch_size, recipe.clip, states / products)
    return runs, timing | {"products": products}
