"""Compare one configuration's predictions through the cache with those of a plain float32 network.

`python -m stages.cache_study.precision frn clip`, on every validation image, for every seed.
"""

import numpy as np
import torch

from stages.core.checkpoints import load_checkpoint
from stages.core.device import choose_dtype, take_device
from stages.core.files import write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.data.feature_cache import FeatureCache
from stages.models.configurations import make_key
from stages.models.transfer_model import rebuild_model
from stages.training.evaluation import predict_logits


def main(params: Params, norm: str, mode: str) -> None:
    key, device = make_key(norm, mode), take_device(params)
    dtype = choose_dtype(params.train.precision, device)
    cache, plain = FeatureCache(), torch.from_numpy(np.load("data/cache_study_plain.npy"))
    stored, labels = cache.features("val"), cache.labels("val")
    backbone = torch.load("models/backbone.pt", weights_only=True)
    metrics = {"images": len(labels)}
    for seed in params.seeds:
        checkpoint = load_checkpoint(f"models/{key}/seed{seed}.pt")
        (exact,) = predict_logits([rebuild_model(checkpoint, backbone).to(device)], plain)
        (found,) = predict_logits([rebuild_model(checkpoint, backbone, dtype).to(device)], stored)
        exact, found = exact.argmax(1), found.argmax(1)
        difference = abs((found == labels).sum() - (exact == labels).sum()).item() / len(labels)
        metrics[f"flipped_seed{seed}"] = (found != exact).double().mean().item()
        metrics[f"accuracy_difference_seed{seed}"] = difference
    write_json(f"metrics/cache_study/precision/{key}.json", metrics)


if __name__ == "__main__":
    run_stage(main, "norm", "mode", timing="cache_study/precision-{}-{}")
