"""Train one configuration with several numbers of augmented views, and compare its validation accuracy."""

from dataclasses import asdict, replace

import pandas as pd
import torch

from stages.cache_study.view_comparison import draw_views, summarize_views
from stages.core.device import take_device
from stages.core.files import write_csv, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.states import kept_states
from stages.data.feature_cache import FeatureCache
from stages.models.norms import load_norm
from stages.reporting.plotting import save_figure
from stages.training.from_features import make_recipe, train_seeds


def main(params: Params) -> None:
    device = take_device(params)
    backbone = torch.load("models/backbone.pt", weights_only=True)
    cache, more = FeatureCache(), FeatureCache("data/cache_study")
    recipe = make_recipe(params.train, cache, params.cache_study.norm, clip=None)
    data = cache.training_data(device)
    views, inputs = data.views + more.views(device), ["models/backbone.pt", *cache.files(), *more.files()]
    code = [train_seeds, FeatureCache, load_norm(params.cache_study.norm).make_layer]
    rows = []
    for count in params.cache_study.views:
        name, own = f"training on {count} views", replace(data, views=views[:count])
        with kept_states(f"cache_study_training/{count}", name, asdict(recipe), inputs, code) as states:
            runs, _ = train_seeds(f"{count} views", recipe, params.seeds, backbone, own, states, device)
        rows += [{"views": count} | row for run in runs for row in run.history]
    curves = pd.DataFrame(rows)[["views", "seed", "epoch", "train_loss", "val_loss", "val_accuracy"]]
    write_csv("plots/cache_study/views.csv", curves)
    write_json("metrics/cache_study/views.json", summarize_views(curves))
    save_figure(draw_views(curves, params.cache_study.norm, cache.about), "plots/cache_study/views.png")


if __name__ == "__main__":
    run_stage(main, timing="cache_study/views")
