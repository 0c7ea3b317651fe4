"""Train a plain head on the frozen MobileNetV2, on the same shares of the training images as the CNN from scratch."""

import shutil
from dataclasses import asdict, replace

import pandas as pd
import torch

from stages.lib.feature_cache import FeatureCache
from stages.lib.files import SCRATCH, fingerprint, locked, write, write_json
from stages.lib.image_studies import Baseline, ImageParams
from stages.lib.shares import choose_share
from stages.lib.stage import run_stage
from stages.lib.summary import finish_run, summarize_configuration
from stages.lib.transfer_training import train_seeds

INPUTS = ["models/backbone.pt", "data/split.npz", "data/features/about.json"]
FROZEN = {"norm": "none", "clip": None, "block_lr": 0.0, "placement": "vector", "block_bn_statistics": "frozen"}


def make_settings(params: ImageParams, study: Baseline, cache: FeatureCache) -> dict:
    """The baseline's recipe for pooling, FC(256), ReLU, dropout and FC(10); nothing else trains."""
    recipe = {"epochs": study.epochs, "batch_size": study.batch_size, "head_lr": study.lr}
    return asdict(params.train) | cache.model_settings | recipe | FROZEN


def main(params: ImageParams) -> dict:
    study, cache = params.baseline, FeatureCache()
    backbone = torch.load("models/backbone.pt", weights_only=True)
    data, settings = cache.training_data(), make_settings(params, study, cache)
    train, test = ((cache.features(part), cache.labels(part)) for part in ("train_eval", "test"))
    scratch, rows, seconds = SCRATCH / "baseline_transfer", [], {}
    with locked(scratch, "the training of the transfer model"):
        states = scratch / fingerprint(settings, INPUTS)
        for percent in study.percents:
            name, chosen = f"{percent:g}", choose_share(data.labels, percent)
            own = replace(data, views=[view[chosen] for view in data.views], labels=data.labels[chosen])
            runs, timing = train_seeds(f"transfer {name}%", settings, study.seeds, backbone, own, states / name)
            seconds[f"seconds_per_epoch_{name}"] = timing["seconds_per_epoch"]
            metrics = {run.seed: finish_run(run, train, test) for run in runs}
            write_json(f"metrics/baseline/transfer/{name}.json", summarize_configuration(metrics))
            rows += [{"percent": percent, "images": len(chosen)} | row for run in runs for row in run.history]
        curves = pd.DataFrame(rows)
        write("plots/baseline/transfer.csv", lambda path: curves.to_csv(path, index=False, float_format="%.6g"))
        shutil.rmtree(states)
    return seconds


if __name__ == "__main__":
    run_stage(main, timing="baseline/transfer", schema=ImageParams)
