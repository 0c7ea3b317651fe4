"""Train one configuration with several numbers of augmented views, and compare its validation accuracy."""

from dataclasses import asdict, replace

import pandas as pd
import torch

from stages.lib.device import take_device
from stages.lib.feature_cache import FeatureCache
from stages.lib.files import write_csv, write_json
from stages.lib.params import Params
from stages.lib.plotting import save_figure
from stages.lib.stage import run_stage
from stages.lib.states import kept_states
from stages.lib.transfer_training import train_seeds
from stages.lib.views import draw_views, summarize_views


def main(params: Params) -> None:
    device = take_device(params)
    backbone = torch.load("models/backbone.pt", weights_only=True)
    cache, more = FeatureCache(), FeatureCache("data/cache_study")
    settings = asdict(params.train) | cache.model_settings | {"norm": params.cache_study.norm, "clip": None}
    data = cache.training_data(device)
    views, inputs = data.views + more.views(device), ["models/backbone.pt", *cache.files(), *more.files()]
    rows = []
    for count in params.cache_study.views:
        name, own = f"training on {count} views", replace(data, views=views[:count])
        with kept_states(f"cache_study_training/{count}", name, settings, inputs) as states:
            runs, _ = train_seeds(f"{count} views", settings, params.seeds, backbone, own, states, device)
        rows += [{"views": count} | row for run in runs for row in run.history]
    curves = pd.DataFrame(rows)[["views", "seed", "epoch", "train_loss", "val_loss", "val_accuracy"]]
    write_csv("plots/cache_study/views.csv", curves)
    write_json("metrics/cache_study/views.json", summarize_views(curves))
    save_figure(draw_views(curves, params.cache_study.norm, cache.about), "plots/cache_study/views.png")


if __name__ == "__main__":
    run_stage(main, timing="cache_study/views")
