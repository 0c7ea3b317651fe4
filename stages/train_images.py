"""Train one network from images, for every seed: `python -m stages.train_images small_cnn groupnorm`."""

from dataclasses import asdict

import torch

from stages.core.checkpoints import save_checkpoint
from stages.core.device import choose_dtype, take_device
from stages.core.files import read_json, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.states import kept_states
from stages.data.cifar10 import CIFAR10Data
from stages.data.images import load_image_data, load_part
from stages.models.costs import count_multiply_adds, count_parameters, measure_latency
from stages.models.image_classifier import ImageClassifier, make_image_classifier
from stages.training.from_images import train_image_seeds
from stages.training.image_studies import find_variant
from stages.training.run_metrics import finish_runs, summarize_configuration, write_tables

INPUTS = ["data/cifar10.npz", "data/split.npz", "data/stats.json"]
TRAIN_EVAL = 10_000  # training images on which training accuracy is measured, without augmentation


def main(params: Params, study: str, variant: str) -> dict:
    recipe, network, settings = find_variant(params, study, variant)
    data, about = CIFAR10Data.load(), read_json("data/stats.json")
    colors = {"mean": about["mean"], "std": about["std"]}
    device = take_device(params)
    dtype = choose_dtype(recipe.precision, device)
    code = [train_image_seeds, load_image_data, make_image_classifier]
    identity = [recipe.of_one_seed(), network, settings, str(dtype)]

    def make(seed: int) -> ImageClassifier:
        return make_image_classifier(network, seed=seed, product_dtype=dtype, **colors, **settings)

    with kept_states(f"{study}/{variant}", f"training of {variant} in {study}", identity, INPUTS, code) as states:
        images = load_image_data(data, recipe.augmentation_seed, recipe.percent, device)
        runs, timing = train_image_seeds(f"{study} {variant}", make, recipe, images, states, device)
    train = images.images[:TRAIN_EVAL], images.labels[:TRAIN_EVAL]
    metrics, predictions = finish_runs(runs, train, load_part(data, "test", device))
    for run in runs:
        contents = {"network": network, "settings": settings, "recipe": asdict(recipe), "epoch": run.best["epoch"]}
        path = f"models/{study}/{variant}/seed{run.seed}.pt"
        save_checkpoint(path, contents | {"state_dict": run.best["state_dict"]} | metrics[run.seed])
    write_tables(runs, f"plots/{study}/curves/{variant}.csv", f"plots/{study}/gradients/{variant}.csv")
    predictions.save(f"data/{study}/{variant}.npz")
    plain, image = runs[0].model.network.float().cpu(), torch.zeros(1, 3, 32, 32)
    costs = {"parameters": count_parameters(plain), "multiply_adds": count_multiply_adds(plain, image)}
    write_json(f"metrics/{study}/train/{variant}.json", summarize_configuration(metrics) | costs)
    return timing | {"latency_ms": 1000 * measure_latency(plain, image)}


if __name__ == "__main__":
    run_stage(main, "study", "variant", timing="{}/{}")
