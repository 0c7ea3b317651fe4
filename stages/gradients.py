"""Gradients of small batches at one configuration's trained weights: `python -m stages.gradients batchnorm clip`."""

import numpy as np
import pandas as pd
import torch

from stages.core.checkpoints import load_checkpoint
from stages.core.device import choose_dtype, take_device
from stages.core.files import write_csv, write_json
from stages.core.params import Gradients, Params
from stages.core.stage import run_stage
from stages.data.feature_cache import FeatureCache
from stages.measure.gradient_moments import Batches, collect_moments, describe_moments, total_norms
from stages.models.configurations import make_key
from stages.models.transfer_model import rebuild_model
from stages.training.gradient_tracking import find_clip_factors

SUMMARY = ("grad_norm", "grad_to_weight", "cosine", "snr_median", "snr_above_1", "clip_fraction", "clip_coefficient")


def draw_batches(cache: FeatureCache, settings: Gradients) -> Batches:
    """The same batches for every configuration and seed: images of the first training view, without repeats."""
    features, labels = cache.features("train_view0"), cache.labels("train")
    count = settings.batches * settings.batch_size
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(settings.seed))[:count]
    return [(features[batch], labels[batch]) for batch in order.split(settings.batch_size)]


def main(params: Params, norm: str, mode: str) -> None:
    key, settings = make_key(norm, mode), params.gradients
    backbone = torch.load("models/backbone.pt", weights_only=True)
    device = take_device(params)
    dtype = choose_dtype(params.train.precision, device)
    batches = draw_batches(FeatureCache(), settings)
    rows, totals = [], []
    for seed in params.seeds:
        model = rebuild_model(load_checkpoint(f"models/{key}/seed{seed}.pt"), backbone, dtype).to(device)
        moments = collect_moments(model, batches, seed)
        layers = list(moments.values())
        factors = find_clip_factors(total_norms(layers), getattr(params, mode))
        total = describe_moments(layers, settings.batch_size)
        clipping = {"clip_fraction": float((factors < 1).mean()), "clip_coefficient": float(factors.mean())}
        totals.append(total | clipping)
        rows.append({"seed": seed, "layer": "all"} | total)
        by_layer = {name: describe_moments([one], settings.batch_size) for name, one in moments.items()}
        rows += [{"seed": seed, "layer": name} | own for name, own in by_layer.items()]
    table = pd.DataFrame(rows)
    write_csv(f"plots/gradient_statistics/{key}.csv", table, "%.6g")
    metrics: dict[str, float | None] = {"batch_size": settings.batch_size, "batches": settings.batches}
    metrics |= {name: float(np.mean([total[name] for total in totals])) for name in SUMMARY}
    scales = [total["noise_scale"] for total in totals]
    metrics["noise_scale"] = None if None in scales else float(np.median(scales))
    write_json(f"metrics/gradients/{key}.json", metrics)
    print(f"{key}: gradient norm {metrics['grad_norm']:.2f} at batches of {settings.batch_size}")


if __name__ == "__main__":
    run_stage(main, "norm", "mode", timing="gradients-{}-{}")
