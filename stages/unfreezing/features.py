"""Compute what the frozen blocks give, if more than features.18 trains: `python -m stages.unfreezing.features 16`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stages.core.device import take_device
from stages.core.files import StageError
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.data.cifar10 import CIFAR10Data, stratified_take
from stages.data.feature_extraction import Part, fill_cache, load_trunk, make_clean_parts, make_view
from stages.data.shares import choose_share
from stages.models.trunk import Trunk
from stages.unfreezing.blocks import parse_block

FOLDER = Path("data/unfreezing")


def shrink_part(part: Part, percent: float) -> Part:
    """A stratified share of a part's images, the same for every view."""
    (name, labels), *_ = part.labels.items()
    chosen = choose_share(torch.from_numpy(labels), percent).numpy()
    draws = None if part.draws is None else part.draws[chosen]
    return replace(part, images=part.images[chosen], draws=draws, labels={name: labels[chosen]})


def sample_clean(view: Part, percent: float, count: int, seed: int) -> Part:
    """Some of a view's images without augmentation, to measure training accuracy on: what `count` is at 100%."""
    (labels,) = view.labels.values()
    chosen = stratified_take(labels, min(round(count * percent / 100), len(labels)), np.random.default_rng(seed))
    return Part("train_eval", view.images[chosen], None, {"train_eval": labels[chosen]})


def cut_trunk(trunk: Trunk, about: dict, end: int) -> tuple[Trunk, dict]:
    """The trunk up to features[0:end], and what a cache of its outputs says of itself."""
    if end > about["trainable_from"]:
        raise StageError(f"the trunk ends at features.{about['trainable_from']}: set backbone.trainable_from to {end}")
    trunk.features = trunk.features[:end]
    with torch.no_grad():
        shape = trunk(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)).shape[1:]
    return trunk, about | {"trainable_from": end, "trunk_output": list(shape)}


def main(params: Params, block: str) -> None:
    study, settings, end = params.unfreezing, params.features, parse_block(params, block)
    data, seed = CIFAR10Data.load(), settings.augmentation_seed
    trunk, about = cut_trunk(*load_trunk(settings.normalization), end)
    views = [shrink_part(make_view(data, view, seed), study.percent) for view in range(study.views)]
    sample = sample_clean(views[0], study.percent, settings.train_eval_images, seed)
    _, validation, test = make_clean_parts(data, settings.train_eval_images, seed)
    parts = [*views, sample, shrink_part(validation, study.percent), test]
    FOLDER.mkdir(parents=True, exist_ok=True)
    fill_cache(FOLDER / str(end), parts, trunk, about, settings.precision, seed, take_device(params))


if __name__ == "__main__":
    run_stage(main, "block", timing="unfreezing/features-{}")
