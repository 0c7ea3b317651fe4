"""Train the end of MobileNetV2 and a head on stored features, for several seeds."""

from pathlib import Path

import torch

from stages.core.device import choose_dtype
from stages.data.feature_cache import TrainingData
from stages.models.transfer_model import TransferModel, make_model_from_settings
from stages.models.trunk import StateDict
from stages.training.loop import Run, train_runs


def make_optimizer(model: TransferModel, head_lr: float, block_lr: float) -> torch.optim.Adam:
    """Adam (Kingma & Ba 2015) with one step size for the head and one for MobileNetV2's blocks."""
    groups = [
        {"params": model.features.parameters(), "lr": block_lr},
        {"params": model.head.parameters(), "lr": head_lr},
    ]
    return torch.optim.Adam(groups, fused=True)


def train_seeds(
    title: str,
    settings: dict,
    seeds: list[int],
    backbone: StateDict,
    data: TrainingData,
    states: Path,
    device: torch.device,
) -> tuple[list[Run], dict]:
    """Train one configuration for every seed; returns the finished runs and what wall-clock figures there are.

    `settings` are the parameters of section `train`, `norm` and `clip`, and of the features `trainable_from` and
    `padding`. Raises StageError as `train_runs` does.
    """
    dtype = choose_dtype(settings["precision"], device)
    products, runs = str(dtype).removeprefix("torch."), []
    for seed in seeds:
        model = make_model_from_settings(settings | {"seed": seed}, backbone, dtype).to(device)
        runs.append(Run(seed, model, make_optimizer(model, settings["head_lr"], settings["block_lr"])))
    epochs, batch_size, threshold = (settings[name] for name in ("epochs", "batch_size", "clip"))
    timing = train_runs(title, runs, data, epochs, batch_size, threshold, states / products)
    return runs, timing | {"products": products}
