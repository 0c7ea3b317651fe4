"""Train every norm under variants of one setting: `python -m stages.variants.train thresholds`."""

import math
import shutil
from dataclasses import asdict

import pandas as pd
import torch

from stages.lib.device import choose_device
from stages.lib.feature_cache import FeatureCache, TrainingData
from stages.lib.feature_shares import take_share
from stages.lib.files import SCRATCH, fingerprint, locked, write
from stages.lib.heads import HIDDEN
from stages.lib.params import Params
from stages.lib.saturation import saturated_share
from stages.lib.stage import run_stage
from stages.lib.training import Run
from stages.lib.transfer import TransferModel, make_model_from_settings
from stages.lib.transfer_training import train_seeds
from stages.variants.studies import list_variants

INPUTS = ["models/backbone.pt", "data/split.npz", "data/features/about.json"]
CURVES = "norm variant seed epoch train_loss val_loss val_accuracy grad_norm clip_fraction clip_coefficient".split()
UPDATES = ["update_ratio", "learned_eps", "saturated_at_start", "saturated"]
FRN_EPS = "head.norm.eps_l"  # one per unit


def update_ratios(run: Run) -> dict[int, float]:
    """Per epoch, |update| / |weight| of FC1's weight at the epoch's first step: Adam's effective step size there."""
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
    variants = list_variants(params, study)
    own = params.variants
    backbone = torch.load("models/backbone.pt", weights_only=True)
    cache = FeatureCache()
    data = take_share(cache.training_data(), own.percent)
    common = asdict(params.train) | cache.model_settings | {"epochs": own.epochs, "clip": None}
    scratch, rows = SCRATCH / "variants" / study, []
    states = scratch / "states"
    with locked(scratch, f"the study of {study}"):
        for norm in params.norms:
            for name, changes in variants.items():
                settings = common | {"norm": norm} | changes
                folder = states / fingerprint([settings, own.percent], INPUTS)
                runs, _ = train_seeds(f"{norm}, {study} {name}", settings, own.seeds, backbone, data, folder)
                for run in runs:
                    untrained = make_model_from_settings(settings | {"seed": run.seed}, backbone).to(choose_device())
                    rows += [{"norm": norm, "variant": name} | row for row in describe_run(run, data, untrained)]
        table = pd.DataFrame(rows)[[*CURVES, *UPDATES]].astype(dict.fromkeys(UPDATES, float))
        write(f"plots/variants/{study}.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))
        shutil.rmtree(states)


if __name__ == "__main__":
    run_stage(main, "study", timing="variants/{}")
