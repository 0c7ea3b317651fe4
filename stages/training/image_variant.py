"""Train one variant of a study from images, for every seed, and leave what every such study has of it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TypeVar

import torch
from torch import nn

from stages.core.checkpoints import save_checkpoint
from stages.core.device import choose_dtype
from stages.core.files import read_json, write_json
from stages.core.params import ParamsError, Recipe
from stages.core.states import kept_states
from stages.data.cifar10 import CIFAR10Data
from stages.data.images import load_image_data, load_part
from stages.models.costs import count_multiply_adds, count_parameters, measure_latency
from stages.models.image_classifier import ImageClassifier
from stages.training.from_images import describe_one_seed, train_image_seeds
from stages.training.run_metrics import finish_runs, summarize_configuration, write_tables

INPUTS = ["data/cifar10.npz", "data/split.npz", "data/stats.json"]
TRAIN_EVAL = 10_000  # training images on which training accuracy is measured, without augmentation

Variant = TypeVar("Variant")


def find_variant(variants: Mapping[str, Variant], name: str, study: str) -> Variant:
    """The one called `name`; ParamsError with the names there are for any other."""
    if name not in variants:
        raise ParamsError(f"'{name}' is no variant of {study}; params.yaml lists {', '.join(variants)}")
    return variants[name]


def train_variant(
    study: str,
    variant: str,
    make_network: Callable[..., nn.Module],
    settings: dict,
    recipe: Recipe,
    device: torch.device,
) -> dict:
    """Train `make_network(seed=seed, **settings)` for every seed of the recipe; returns wall-clock figures.

    The network takes (N, 3, 32, 32) to logits (N, 10). `make_network` is a function at the top of its module, not a
    partial one: a finished seed counts as long as its code is the same. Checkpoints, predictions, curves, gradients and
    metrics go to the folders of `study`.
    """
    data, colors = CIFAR10Data.load(), read_json("data/stats.json")
    dtype = choose_dtype(recipe.precision, device)
    identity = [describe_one_seed(recipe), settings, str(dtype)]
    code = [train_image_seeds, load_image_data, ImageClassifier, make_network]

    def make(seed: int) -> ImageClassifier:
        return ImageClassifier(make_network(seed=seed, **settings), colors["mean"], colors["std"], dtype)

    with kept_states(f"{study}/{variant}", f"training of {variant} in {study}", identity, INPUTS, code) as states:
        images = load_image_data(data, recipe.augmentation_seed, recipe.percent, device)
        runs, timing = train_image_seeds(f"{study} {variant}", make, recipe, images, states, device)
    train = images.images[:TRAIN_EVAL], images.labels[:TRAIN_EVAL]
    metrics, predictions = finish_runs(runs, train, load_part(data, "test", device))
    about = {"network": make_network.__name__.removeprefix("make_"), "settings": settings, "recipe": asdict(recipe)}
    for run in runs:
        contents = about | {"epoch": run.best["epoch"], "state_dict": run.best["state_dict"]} | metrics[run.seed]
        save_checkpoint(f"models/{study}/{variant}/seed{run.seed}.pt", contents)
    write_tables(runs, f"plots/{study}/curves/{variant}.csv", f"plots/{study}/gradients/{variant}.csv")
    predictions.save(f"data/{study}/{variant}.npz")
    plain, image = runs[0].model.network.float().cpu(), torch.zeros(1, 3, 32, 32)
    costs = {"parameters": count_parameters(plain), "multiply_adds": count_multiply_adds(plain, image)}
    write_json(f"metrics/{study}/train/{variant}.json", summarize_configuration(metrics) | costs)
    return timing | {"latency_ms": 1000 * measure_latency(plain, image)}
