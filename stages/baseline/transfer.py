"""Train a plain head on the frozen MobileNetV2, on the same shares of the training images as the CNN from scratch.

Nothing but the head trains, so what it sees of an image, the pooled output of features.18, is computed once.
"""

from functools import partial

import numpy as np
import pandas as pd
import torch

from stages.core.device import take_device
from stages.core.files import StageError, write_csv, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.states import kept_states
from stages.data.cifar10 import stratified_take
from stages.data.feature_cache import FeatureCache, TrainingData
from stages.data.shares import choose_share, take_share
from stages.models.heads import Head, make_head
from stages.models.norms import load_norm
from stages.models.transfer_model import TransferModel, activate_in_batches, make_blocks
from stages.models.trunk import LAST
from stages.training.from_images import describe_one_seed, take_recipe, train_image_seeds
from stages.training.run_metrics import finish_runs, summarize_configuration


def load_frozen(cache: FeatureCache, device: torch.device) -> TransferModel:
    """The end of MobileNetV2 with its pretrained weights."""
    backbone = torch.load("models/backbone.pt", weights_only=True)
    blocks = make_blocks(backbone, **cache.model_settings)
    return TransferModel(blocks, make_head("none", blocks[str(LAST)][0].out_channels, seed=0)).eval().to(device)


def find_trained(labels: torch.Tensor, sampled: torch.Tensor, percent: float, seed: int) -> torch.Tensor:
    """Which images of the cache's part `train_eval` a share holds, so that training accuracy is that of trained images.

    `labels` are the training images', `sampled` the part's, whose images `seed` chose; bool, as long as `sampled`.
    """
    positions = torch.from_numpy(stratified_take(labels.numpy(), len(sampled), np.random.default_rng(seed)))
    assert torch.equal(labels[positions], sampled), "train_eval is not the sample that features draws"
    trained = torch.isin(positions, choose_share(labels, percent))
    if not trained.any():
        raise StageError(
            f"none of the {len(sampled)} images for training accuracy is in {percent:g}% of the training images: "
            "raise features.train_eval_images in params.yaml"
        )
    return trained


def main(params: Params) -> dict:
    study, dropout, cache, device = params.baseline, params.train.dropout, FeatureCache(), take_device(params)
    frozen, stored = load_frozen(cache, device), cache.training_data(device)
    pool = partial(activate_in_batches, frozen)
    views, validation = [pool(view) for view in stored.views], pool(stored.val_inputs)
    data = TrainingData(views, stored.labels, validation, stored.val_labels)
    train, test = ((pool(cache.features(part)), cache.labels(part)) for part in ("train_eval", "test"))
    recipe, seed = take_recipe(study), params.features.augmentation_seed
    trained = {percent: find_trained(stored.labels, train[1], percent, seed) for percent in study.percents}

    def make(seed: int) -> Head:
        return make_head("none", validation.shape[1], seed=seed, dropout_rate=dropout)

    rows, seconds, inputs = [], {}, ["models/backbone.pt", *cache.files()]
    code = [train_image_seeds, FeatureCache, take_share, make_head, make_blocks, load_norm("none").make_layer]
    for percent in study.percents:
        name, own = f"{percent:g}", take_share(data, percent)
        title, identity = f"transfer {name}%", [describe_one_seed(recipe), percent, dropout]
        with kept_states(f"baseline_transfer/{name}", title, identity, inputs, code) as states:
            runs, timing = train_image_seeds(title, make, recipe, own, states, device)
        seconds[f"seconds_per_epoch_{name}"] = timing["seconds_per_epoch"]  # None where every seed was finished
        metrics, _ = finish_runs(runs, tuple(tensor[trained[percent]] for tensor in train), test)
        write_json(f"metrics/baseline/transfer/{name}.json", summarize_configuration(metrics))
        rows += [{"percent": percent, "images": len(own.labels)} | row for run in runs for row in run.history]
    curves = pd.DataFrame(rows)
    write_csv("plots/baseline/transfer.csv", curves, "%.6g")
    return seconds


if __name__ == "__main__":
    run_stage(main, timing="baseline/transfer")
