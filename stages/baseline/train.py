"""Train the simple CNN on one share of the training images, for every seed: `python -m stages.baseline.train 25`."""

from stages.baseline.network import make_baseline_cnn
from stages.core.device import take_device
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.training.from_images import take_recipe
from stages.training.image_variant import find_variant, train_variant


def main(params: Params, percent: str) -> dict:
    study = params.baseline
    share = find_variant({f"{share:g}": share for share in study.percents}, percent, "baseline")
    recipe = take_recipe(study, percent=share)
    return train_variant("baseline", percent, make_baseline_cnn, {}, recipe, take_device(params))


if __name__ == "__main__":
    run_stage(main, "percent", timing="baseline/{}")
