"""Train the blocks from one on, and a head: `python -m stages.unfreezing.train 16`."""

from dataclasses import asdict

import torch

from stages.core.checkpoints import save_checkpoint
from stages.core.device import make_convolutions_repeatable, take_device
from stages.core.files import write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.states import kept_states
from stages.data.feature_cache import FeatureCache
from stages.models.costs import count_multiply_adds, count_parameters
from stages.models.norms import load_norm
from stages.models.transfer_model import TransferRecipe, assert_block_statistics_frozen, make_model
from stages.training.from_features import make_recipe, train_seeds
from stages.training.run_metrics import finish_runs, summarize_configuration, write_tables
from stages.unfreezing.blocks import parse_block

STUDY = "unfreezing"


def measure_costs(recipe: TransferRecipe, backbone: dict, cache: FeatureCache) -> dict[str, int]:
    """What training one image takes: trained parameters, multiply-adds forward, bytes of a stored view."""
    model, inputs = make_model(backbone, recipe, seed=0), cache.features("test")[:1]
    return {
        "parameters": count_parameters(model),
        "multiply_adds": count_multiply_adds(model, inputs),
        "stored_bytes": inputs.nbytes,
    }


def main(params: Params, block: str) -> dict:
    make_convolutions_repeatable()
    study, first = params.unfreezing, parse_block(params, block)
    backbone = torch.load("models/backbone.pt", weights_only=True)
    cache = FeatureCache(f"data/{STUDY}/{first}")
    own = {"epochs": study.epochs, "block_lr": study.block_lr}
    recipe = make_recipe(params.train, cache, study.norm, clip=None, **own)
    title, device = f"trained from features.{first} on", take_device(params)
    inputs, code = ["models/backbone.pt", *cache.files()], [train_seeds, FeatureCache, load_norm(study.norm).make_layer]
    with kept_states(f"{STUDY}/{block}", title, asdict(recipe), inputs, code) as states:
        runs, timing = train_seeds(title, recipe, study.seeds, backbone, cache.training_data(device), states, device)
    if recipe.block_bn_statistics == "frozen":
        for run in runs:
            assert_block_statistics_frozen(run.model, backbone)
    train, test = ((cache.features(part), cache.labels(part)) for part in ("train_eval", "test"))
    metrics, _ = finish_runs(runs, train, test)
    for run in runs:
        contents = {"state_dict": run.best["state_dict"], "params": asdict(recipe) | {"seed": run.seed}}
        save_checkpoint(f"models/{STUDY}/{block}/seed{run.seed}.pt", contents | metrics[run.seed])
    write_tables(runs, f"plots/{STUDY}/curves/{block}.csv", f"plots/{STUDY}/gradients/{block}.csv")
    costs = measure_costs(recipe, backbone, cache)
    write_json(f"metrics/{STUDY}/train/{block}.json", summarize_configuration(metrics) | costs)
    return timing | {"images": cache.about["images"]["train_view0"]}


if __name__ == "__main__":
    run_stage(main, "block", timing="unfreezing/train-{}")
