"""Train every norm under variants of one setting: `python -m stages.variants.train thresholds`."""

import math
from dataclasses import asdict
from itertools import product

import pandas as pd
import torch

from stages.core.device import take_device
from stages.core.files import write_csv
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.states import kept_states
from stages.data.feature_cache import FeatureCache, TrainingData
from stages.data.shares import take_share
from stages.measure.saturation import saturated_share
from stages.models.heads import HIDDEN
from stages.models.norms import load_norm
from stages.models.transfer_model import TransferModel, make_model
from stages.training.from_features import make_recipe, train_seeds
from stages.training.loop import Run
from stages.variants.studies import list_variants

CURVES = "norm variant seed epoch train_loss val_loss val_accuracy grad_norm clip_fraction clip_coefficient".split()
UPDATES = ["update_ratio", "learned_eps", "saturated_at_start", "saturated"]
FRN_EPS = "head.norm.eps_l"  # one per unit


def update_ratios(run: Run) -> dict[int, float]:
    """Per epoch, |update| / |weight| of FC1's weight at the epoch's first step: the relative length of Adam's step."""
    rows = [row for row in run.gradients if row["layer"] == "head.fc1.weight"]
    return {row["epoch"]: row["update_norm"] / row["weight_norm"] for row in rows}


def learned_epsilons(run: Run) -> dict[int, float]:
    """Per epoch, the root mean square over units of FRN's learned epsilon before the first step; empty without one."""
    rows = [row for row in run.gradients if row["layer"] == FRN_EPS]
    return {row["epoch"]: row["weight_norm"] / math.sqrt(HIDDEN) for row in rows}


def describe_run(run: Run, data: TrainingData, untrained: TransferModel) -> list[dict]:
    """One row per epoch of a finished run, with what its FRN units were at the start and have become."""
    ratios, epsilons = update_ratios(run), learned_epsilons(run)
    saturated = {
        "saturated_at_start": saturated_share(untrained, data.val_inputs),
        "saturated": saturated_share(run.model, data.val_inputs),
    }
    return [
        row | {"update_ratio": ratios[row["epoch"]], "learned_eps": epsilons.get(row["epoch"])} | saturated
        for row in run.history
    ]


def main(params: Params, study: str) -> None:
    variants, device = list_variants(params, study), take_device(params)
    own = params.variants
    backbone = torch.load("models/backbone.pt", weights_only=True)
    cache = FeatureCache()
    data, inputs = take_share(cache.training_data(device), own.percent), ["models/backbone.pt", *cache.files()]
    rows = []
    for norm, (name, changes) in product(params.norms, variants.items()):
        title = f"{norm}, {study} {name}"
        recipe = make_recipe(params.train, cache, norm, **{"clip": None, "epochs": own.epochs} | changes)
        code = [train_seeds, FeatureCache, take_share, load_norm(norm).make_layer]
        with kept_states(
            f"variants/{study}/{norm}-{name}", title, [asdict(recipe), own.percent], inputs, code
        ) as states:
            runs, _ = train_seeds(title, recipe, own.seeds, backbone, data, states, device)
        for run in runs:
            untrained = make_model(backbone, recipe, run.seed).to(device)
            rows += [{"norm": norm, "variant": name} | row for row in describe_run(run, data, untrained)]
    table = pd.DataFrame(rows)[[*CURVES, *UPDATES]].astype(dict.fromkeys(UPDATES, float))
    write_csv(f"plots/variants/{study}.csv", table, "%.6g")


if __name__ == "__main__":
    run_stage(main, "study", timing="variants/{}")
