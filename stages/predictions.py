"""One configuration's class probabilities of every test image: `python -m stages.predictions frn clip`."""

import numpy as np
import torch

from stages.lib.checkpoint import load_checkpoint
from stages.lib.device import choose_device, choose_dtype
from stages.lib.feature_cache import FeatureCache
from stages.lib.params import Params, configuration_key
from stages.lib.predictions import Predictions, predict_probabilities
from stages.lib.stage import run_stage
from stages.lib.transfer import rebuild_model


def main(params: Params, norm: str, mode: str) -> None:
    key = configuration_key(norm, mode)
    backbone = torch.load("models/backbone.pt", weights_only=True)
    device = choose_device()
    dtype = choose_dtype(params.train.precision, device)
    cache = FeatureCache()
    features, labels = cache.features("test"), cache.labels("test").numpy()
    models = (
        rebuild_model(load_checkpoint(f"models/{key}/seed{seed}.pt"), backbone, dtype).to(device)
        for seed in params.seeds
    )
    probabilities = np.stack([predict_probabilities(model, features) for model in models])
    found = Predictions(np.array(params.seeds), labels, probabilities)
    found.save(f"data/predictions/{key}.npz")
    print(f"{key}: {found.correct.mean():.2%} of {len(labels)} test images are classified correctly")


if __name__ == "__main__":
    run_stage(main, "norm", "mode", timing="predictions-{}-{}")
