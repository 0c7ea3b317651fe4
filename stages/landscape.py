"""The loss landscape around one configuration's first seed: `python -m stages.landscape batchnorm clip`."""

import numpy as np
import torch
import tqdm

from stages.core.checkpoints import load_checkpoint
from stages.core.device import take_device
from stages.core.files import write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.data.cifar10 import save_arrays
from stages.data.feature_cache import FeatureCache
from stages.measure.loss_surface import compute_surface, cosine, measure_surface, random_direction
from stages.models.configurations import make_key
from stages.models.transfer_model import rebuild_model


def main(params: Params, norm: str, mode: str) -> None:
    key, settings, device = make_key(norm, mode), params.landscape, take_device(params)
    checkpoint = load_checkpoint(f"models/{key}/seed{params.seeds[0]}.pt")
    model = rebuild_model(checkpoint, torch.load("models/backbone.pt", weights_only=True)).to(device)
    cache = FeatureCache()
    features, labels = cache.features("val"), cache.labels("val")
    a, b = (random_direction(model, settings.seed, which) for which in (0, 1))
    alphas = betas = np.linspace(-settings.span, settings.span, settings.points)

    with tqdm.tqdm(total=len(labels), desc=f"landscape {key}", unit="img", disable=None) as bar:
        loss, accuracy = compute_surface(model, features, labels, alphas, betas, a, b, bar.update)

    arrays = {"alphas": alphas, "betas": betas, "loss": loss, "accuracy": accuracy}
    for prefix, direction in (("a", a), ("b", b)):
        arrays |= {f"{prefix}/{name}": value.cpu().numpy() for name, value in direction.items()}
    save_arrays(f"plots/landscapes/{key}.npz", arrays)
    metrics = {name: float(value) for name, value in measure_surface(alphas, betas, loss, accuracy).items()}
    write_json(f"metrics/landscape/{key}.json", metrics | {"direction_cosine": cosine(a, b)})
    print(f"{key}: loss {metrics['center_loss']:.4f} at the centre, up to {metrics['max_loss']:.4f} on the grid")


if __name__ == "__main__":
    run_stage(main, "norm", "mode", timing="landscape-{}-{}")
