"""Train every norm under variants of one setting: `python -m stages.variants.train thresholds`."""

import shutil
from dataclasses import asdict

import pandas as pd
import torch

from stages.lib.captions import caption_of_study
from stages.lib.feature_cache import FeatureCache
from stages.lib.feature_shares import take_share
from stages.lib.files import SCRATCH, fingerprint, locked, write, write_json
from stages.lib.plotting import save_figure
from stages.lib.saturation import saturated_share
from stages.lib.stage import run_stage
from stages.lib.training import Run
from stages.lib.transfer_training import train_seeds
from stages.lib.variants import draw_variants, summarize_variants
from stages.variants.params import VariantsParams, list_variants

INPUTS = ["models/backbone.pt", "data/split.npz", "data/features/about.json"]
CURVES = "norm variant seed epoch train_loss val_loss val_accuracy grad_norm clip_fraction clip_coefficient".split()


def mean_update_ratio(run: Run) -> dict[int, float]:
    """Per epoch, |update| / |weight| of FC1's weight at the epoch's first step: Adam's effective step size there."""
    return {
        row["epoch"]: row["update_norm"] / row["weight_norm"]
        for row in run.gradients
        if row["layer"] == "head.fc1.weight"
    }


def main(params: VariantsParams, study: str) -> None:
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
                    ratios, saturated = mean_update_ratio(run), saturated_share(run.model, data.val_inputs)
                    for row in run.history:
                        extra = {"update_ratio": ratios[row["epoch"]], "saturated": saturated}
                        rows.append({"norm": norm, "variant": name} | row | extra)
        table = pd.DataFrame(rows)[[*CURVES, "update_ratio", "saturated"]]
        write(f"plots/variants/{study}.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))
        write_json(f"metrics/variants/{study}.json", summarize_variants(table))
        caption = f"{caption_of_study(len(own.seeds))}; {own.percent:g}% of the training images, {own.epochs} epochs"
        save_figure(draw_variants(table, study, caption), f"plots/variants/{study}.png")
        shutil.rmtree(states)


if __name__ == "__main__":
    run_stage(main, "study", timing="variants/{}", schema=VariantsParams)
