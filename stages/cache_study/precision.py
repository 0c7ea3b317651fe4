"""Compare every validation prediction through the cache with that of a plain float32 network on the image."""

import torch
import tqdm

from stages.core.checkpoints import load_checkpoint
from stages.core.device import choose_dtype, take_device
from stages.core.files import write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.data.cifar10 import CIFAR10Data
from stages.data.feature_cache import FeatureCache
from stages.data.feature_extraction import load_trunk
from stages.models.configurations import list_keys
from stages.models.transfer_model import rebuild_model
from stages.training.evaluation import BATCH_SIZE, predict_logits


def main(params: Params) -> None:
    device = take_device(params)
    dtype = choose_dtype(params.train.precision, device)
    trunk, _ = load_trunk(params.features.normalization)
    images = torch.from_numpy(CIFAR10Data.load().images("val"))
    cache = FeatureCache()
    stored, labels = cache.features("val"), cache.labels("val")
    batches = tqdm.tqdm(images.split(BATCH_SIZE), desc="plain network", disable=None)
    with torch.no_grad():
        plain = torch.cat([trunk.to(device)(batch.to(device)).cpu() for batch in batches])

    backbone = torch.load("models/backbone.pt", weights_only=True)
    metrics = {"images": len(labels), "flipped_max": 0.0, "accuracy_difference_max": 0.0}
    for key in list_keys(params.norms):
        flipped, difference = [], []
        for seed in params.seeds:
            checkpoint = load_checkpoint(f"models/{key}/seed{seed}.pt")
            (exact,) = predict_logits([rebuild_model(checkpoint, backbone).to(device)], plain)
            (found,) = predict_logits([rebuild_model(checkpoint, backbone, dtype).to(device)], stored)
            exact, found = exact.argmax(1), found.argmax(1)
            flipped.append((found != exact).double().mean().item())
            difference.append(abs((found == labels).sum() - (exact == labels).sum()).item() / len(labels))
        metrics[f"flipped_{key}"] = sum(flipped) / len(flipped)
        metrics["flipped_max"] = max(metrics["flipped_max"], *flipped)
        metrics["accuracy_difference_max"] = max(metrics["accuracy_difference_max"], *difference)
    write_json("metrics/cache_study/precision.json", metrics)
    print(f"at most {100 * metrics['flipped_max']:.2f}% of the predictions of a model differ")


if __name__ == "__main__":
    run_stage(main, timing="cache_study/precision")
