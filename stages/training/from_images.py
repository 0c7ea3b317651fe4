"""Train a network on images for several seeds, by a recipe: optimizer, schedule, batches, augmentation."""

from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import nn
from torch.optim import lr_scheduler

from stages.core.device import make_convolutions_repeatable
from stages.core.params import Recipe
from stages.data.images import ImageData
from stages.training.loop import Run, train_runs

OPTIMIZERS = {
    "adam": lambda parameters, lr, decay: torch.optim.Adam(parameters, lr, weight_decay=decay, fused=True),
    "adamw": lambda parameters, lr, decay: torch.optim.AdamW(parameters, lr, weight_decay=decay, fused=True),
    "sgd": lambda parameters, lr, decay: torch.optim.SGD(
        parameters, lr, momentum=0.9, nesterov=True, weight_decay=decay, fused=True
    ),
}
# name -> (optimizer, steps in all) -> a scheduler that is stepped after every batch
SCHEDULES = {
    "constant": lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    "one_cycle": lambda optimizer, steps: lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps
    ),
    "cosine": lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "step": lambda optimizer, steps: lr_scheduler.StepLR(optimizer, -(-steps // 3), gamma=0.1),
}


def take_recipe(study: Recipe, **changes) -> Recipe:
    """The recipe in a study's section, without what the study compares: a variant does not depend on the others."""
    kept = {field.name for field in fields(Recipe)} - changes.keys()
    return Recipe(**{name: getattr(study, name) for name in kept}, **changes)


def describe_one_seed(recipe: Recipe) -> dict:
    """What each seed trains by: the others do not matter to it."""
    return {name: value for name, value in asdict(recipe).items() if name != "seeds"}


def train_image_seeds(
    title: str,
    make: Callable[[int], nn.Module],
    recipe: Recipe,
    data: ImageData,
    states: Path,
    device: torch.device,
) -> tuple[list[Run], dict]:
    """Train `make(seed)` for every seed; returns the finished runs and what wall-clock figures there are.

    `one_cycle` rises to `lr` and falls again; `cosine` falls to 0; `step` divides by 10 after each third of the steps.
    Raises StageError as `train_runs` does.
    """
    make_convolutions_repeatable()
    steps = recipe.epochs * (len(data.labels) // recipe.batch_size)
    runs = []
    for seed in recipe.seeds:
        model = make(seed).to(device)
        optimizer = OPTIMIZERS[recipe.optimizer](model.parameters(), recipe.lr, recipe.weight_decay)
        runs.append(Run(seed, model, optimizer, SCHEDULES[recipe.schedule](optimizer, max(1, steps))))
    return runs, train_runs(title, runs, data, recipe.epochs, recipe.batch_size, None, states)
