"""Train one configuration with several numbers of augmented views, and compare its validation accuracy."""

import shutil
from dataclasses import asdict, replace

import pandas as pd
import torch

from stages.lib.feature_cache import FeatureCache
from stages.lib.files import SCRATCH, fingerprint, locked, write, write_json
from stages.lib.params import Params
from stages.lib.plotting import save_figure
from stages.lib.stage import run_stage
from stages.lib.transfer_training import train_seeds
from stages.lib.views import draw_views, summarize_views

INPUTS = ["models/backbone.pt", "data/split.npz", "data/features/about.json", "data/cache_study/about.json"]


def main(params: Params) -> None:
    backbone = torch.load("models/backbone.pt", weights_only=True)
    cache = FeatureCache()
    settings = asdict(params.train) | cache.model_settings | {"norm": params.cache_study.norm, "clip": None}
    data = cache.training_data()
    views = data.views + FeatureCache("data/cache_study").views()
    scratch, rows = SCRATCH / "cache_study_training", []
    with locked(scratch, "the comparison of views"):
        states = scratch / fingerprint(settings, INPUTS)
        for count in params.cache_study.views:
            own = replace(data, views=views[:count])
            runs, _ = train_seeds(f"{count} views", settings, params.seeds, backbone, own, states / str(count))
            rows += [{"views": count} | row for run in runs for row in run.history]
        curves = pd.DataFrame(rows)[["views", "seed", "epoch", "train_loss", "val_loss", "val_accuracy"]]
        write("plots/cache_study/views.csv", lambda path: curves.to_csv(path, index=False))
        write_json("metrics/cache_study/views.json", summarize_views(curves))
        save_figure(draw_views(curves, params.cache_study.norm, cache.about), "plots/cache_study/views.png")
        shutil.rmtree(states)


if __name__ == "__main__":
    run_stage(main, timing="cache_study/views")
