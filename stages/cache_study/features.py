"""Compute the augmented views that the main study does not store."""

from stages.core.device import take_device
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.data.cifar10 import CIFAR10Data
from stages.data.feature_extraction import fill_cache, load_trunk, make_view


def main(params: Params) -> None:
    settings, seed = params.features, params.features.augmentation_seed
    data = CIFAR10Data.load()
    trunk, about = load_trunk(settings.normalization)
    views = [make_view(data, view, seed) for view in range(settings.views, max(params.cache_study.views))]
    fill_cache("data/cache_study", views, trunk, about, settings.precision, seed, take_device(params))


if __name__ == "__main__":
    run_stage(main, timing="cache_study/features")
