"""Train one variant of MobileNetV2, for every seed: `python -m stages.mobilenetv2.train silu`."""

from stages.core.device import take_device
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.mobilenetv2.network import make_mobilenetv2
from stages.training.from_images import take_recipe
from stages.training.image_variant import find_variant, train_variant


def main(params: Params, variant: str) -> dict:
    study = params.mobilenetv2
    settings = find_variant(study.variants, variant, "mobilenetv2") | {"strides": study.strides}
    return train_variant("mobilenetv2", variant, make_mobilenetv2, settings, take_recipe(study), take_device(params))


if __name__ == "__main__":
    run_stage(main, "variant", timing="mobilenetv2/{}")
