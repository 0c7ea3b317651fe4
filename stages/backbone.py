"""Fetch MobileNetV2's ImageNet weights, in torchvision's names, and describe_backbone them."""

import sys

import torch

from stages.core.files import write, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.models.imagenet_weights import describe_backbone, load_weights


def main(params: Params) -> None:
    settings = params.backbone
    name, convention, sha256, state = load_weights(settings.weights)
    about = describe_backbone(name, convention, sha256, settings.image_size, settings.trainable_from)

    write("models/backbone.pt", lambda path: torch.save(state, path))
    write_json("models/backbone.json", about)
    print(f"weights {name} ({about['source']}), {about['image_size']} px, padding {about['padding']}")
    if settings.weights == "auto" and name != "imagenet1k_v1":
        print(f"NOTE: torchvision's weights could not be downloaded; every result is for {name}", file=sys.stderr)


if __name__ == "__main__":
    run_stage(main, timing="backbone")
