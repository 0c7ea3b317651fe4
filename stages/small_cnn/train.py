"""Train one variant of the small CNN, for every seed: `python -m stages.small_cnn.train groupnorm`."""

from stages.core.device import take_device
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.small_cnn.network import make_small_cnn
from stages.training.from_images import take_recipe
from stages.training.image_variant import find_variant, train_variant


def main(params: Params, variant: str) -> dict:
    study = params.small_cnn
    settings = find_variant(study.variants, variant, "small_cnn")
    return train_variant("small_cnn", variant, make_small_cnn, settings, take_recipe(study), take_device(params))


if __name__ == "__main__":
    run_stage(main, "variant", timing="small_cnn/{}")
