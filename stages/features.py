"""Compute the frozen trunk's output once per image and augmented view."""

from stages.core.device import take_device
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.data.cifar10 import CIFAR10Data
from stages.data.feature_extraction import fill_cache, load_trunk, make_clean_parts, make_view


def main(params: Params) -> None:
    settings, seed = params.features, params.features.augmentation_seed
    data = CIFAR10Data.load()
    trunk, about = load_trunk(settings.normalization)
    views = [make_view(data, view, seed) for view in range(settings.views)]
    parts = views + make_clean_parts(data, settings.train_eval_images, seed)
    fill_cache("data/features", parts, trunk, about, settings.precision, seed, take_device(params))


if __name__ == "__main__":
    run_stage(main, timing="features")
