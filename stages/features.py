"""Compute the frozen trunk's output once per image and augmented view."""

from functools import partial
from pathlib import Path

import torch

from stages.lib.backbone import TRUNK_CHANNELS, Trunk, standardize_like_imagenet
from stages.lib.cifar10 import CIFAR10Data
from stages.lib.device import choose_device, choose_dtype
from stages.lib.feature_extraction import BATCH_SIZE, make_extractor, make_parts, publish, write_cache
from stages.lib.files import SCRATCH, fingerprint, locked, read_json
from stages.lib.params import Params
from stages.lib.stage import run_stage

INPUTS = ["data/cifar10.npz", "data/split.npz", "data/stats.json", "models/backbone.pt", "models/backbone.json"]


def main(params: Params) -> None:
    settings, seed = params.features, params.features.augmentation_seed
    backbone, statistics = read_json("models/backbone.json"), read_json("data/stats.json")
    size, mean, std = backbone["image_size"], backbone["mean"], backbone["std"]
    if settings.normalization == "cifar10":
        mean, std = standardize_like_imagenet(statistics["mean"], statistics["std"], mean, std)
    trunk = Trunk(torch.load("models/backbone.pt", weights_only=True), size, mean, std, backbone["padding"])
    parts, labels = make_parts(CIFAR10Data.load(), settings.views, seed, settings.train_eval_images)
    images = {part.name: len(part.images) for part in parts}
    device = choose_device()
    dtype = choose_dtype(settings.precision, device)
    about = {
        "weights": backbone["weights"],
        "image_size": size,
        "mean": mean,
        "std": std,
        "computed_in": str(dtype).removeprefix("torch."),
        "images": images,
    }

    folder = SCRATCH / "features"
    with locked(folder, "feature extraction"):
        scratch = folder / fingerprint([about, seed], INPUTS)
        shape = (size // 32, size // 32, TRUNK_CHANNELS)
        extractor = partial(make_extractor, trunk, dtype, device, sum(images.values()))
        write_cache(parts, labels, extractor, shape, scratch, BATCH_SIZE[device.type])
        publish(scratch, Path("data/features"), about)


if __name__ == "__main__":
    run_stage(main)
