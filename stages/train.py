"""Train one configuration, features.18 and a head, for every seed: `python -m stages.train batchnorm clip`."""

from dataclasses import asdict
from pathlib import Path

import torch

from stages.core.checkpoints import save_checkpoint
from stages.core.device import take_device
from stages.core.files import file_sha256, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.states import kept_states
from stages.data.feature_cache import FeatureCache
from stages.models.configurations import make_key
from stages.models.norms import load_norm
from stages.models.transfer_model import TransferRecipe, assert_block_statistics_frozen
from stages.training.from_features import make_recipe, train_seeds
from stages.training.loop import Run
from stages.training.run_metrics import finish_runs, summarize_configuration, write_tables


def save_run(path: Path, run: Run, recipe: TransferRecipe, metrics: dict, cache: FeatureCache) -> None:
    """The selected weights, with what it takes to rebuild the network and to check them."""
    save_checkpoint(
        path,
        {
            "state_dict": run.best["state_dict"],
            "params": asdict(recipe) | {"seed": run.seed},
            "input": {name: cache.about[name] for name in ("weights", "image_size", "mean", "std")},
            "epoch": run.best["epoch"],
            "val_accuracy": metrics["val_accuracy"],
            "test_accuracy": metrics["test_accuracy"],
            "split_sha256": file_sha256("data/split.npz"),
        },
    )


def main(params: Params, norm: str, mode: str) -> dict:
    key, device = make_key(norm, mode), take_device(params)
    backbone = torch.load("models/backbone.pt", weights_only=True)
    cache = FeatureCache()
    recipe = make_recipe(params.train, cache, norm, getattr(params, mode))
    inputs, code = ["models/backbone.pt", *cache.files()], [train_seeds, FeatureCache, load_norm(norm).make_layer]
    with kept_states(f"train/{key}", f"training of {key}", asdict(recipe), inputs, code) as states:
        runs, timing = train_seeds(key, recipe, params.seeds, backbone, cache.training_data(device), states, device)
    if recipe.block_bn_statistics == "frozen":
        for run in runs:
            assert_block_statistics_frozen(run.model, backbone)
    train, test = ((cache.features(part), cache.labels(part)) for part in ("train_eval", "test"))
    metrics, predictions = finish_runs(runs, train, test)
    for run in runs:
        save_run(Path(f"models/{key}/seed{run.seed}.pt"), run, recipe, metrics[run.seed], cache)
    predictions.save(f"data/predictions/{key}.npz")
    write_tables(runs, f"plots/curves/{key}.csv", f"plots/gradients/{key}.csv")
    write_json(f"metrics/train/{key}.json", summarize_configuration(metrics))
    return timing


if __name__ == "__main__":
    run_stage(main, "norm", "mode", timing="{}-{}")
