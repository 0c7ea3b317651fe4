"""Compare what MobileNetV2's layers compute before and after fine-tuning, in numbers and in pictures."""

import torch

from stages.core.checkpoints import load_checkpoint
from stages.core.files import write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.data.cifar10 import CIFAR10Data
from stages.data.feature_cache import FeatureCache
from stages.models.trunk import LAST, Trunk
from stages.reporting.plotting import save_figure
from stages.unfreezing.layer_outputs import (
    compare_layers,
    embed,
    pool,
    record_outputs,
    replace_blocks,
    share_of_like_neighbors,
)
from stages.unfreezing.representation_figures import draw_embedding, draw_maps, draw_similarity

# Layers whose maps are drawn, by the name that a reader sees; Keras calls features.14.conv.0 block_13_expand.
DRAWN = {
    "low: features.2": "2",
    "middle: features.6": "6",
    "features.14, expanded": "14.conv.0",
    "high: features.18": "18",
}
DRAWN_IMAGES = 3


def main(params: Params) -> None:
    study, first = params.unfreezing, min(params.unfreezing.trainable_from)
    checkpoint = load_checkpoint(f"models/unfreezing/{first}/seed{study.seeds[0]}.pt")
    about = FeatureCache(f"data/unfreezing/{first}").about
    backbone = torch.load("models/backbone.pt", weights_only=True)
    inputs = [about[name] for name in ("image_size", "mean", "std", "padding")]
    states = {"before": backbone, "after": replace_blocks(backbone, checkpoint["state_dict"])}
    networks = {when: Trunk(state, *inputs, LAST + 1) for when, state in states.items()}

    data = CIFAR10Data.load()
    images, labels = data.images("test")[: study.embedded_images], data.labels("test")[: study.embedded_images]
    layers = [str(block) for block in range(first, LAST + 1)]
    outputs = {when: record_outputs(net, layers, torch.from_numpy(images)) for when, net in networks.items()}
    similarity = compare_layers(outputs["before"], outputs["after"])
    pooled = {when: pool(own[str(LAST)]) for when, own in outputs.items()}
    pictures = {"before fine-tuning": embed(pooled["before"], seed=0)}
    pictures["after"] = embed(pooled["after"], 0, start=pictures["before fine-tuning"])
    shown = torch.from_numpy(images[:DRAWN_IMAGES])
    maps = {when: record_outputs(net, list(DRAWN.values()), shown) for when, net in networks.items()}
    named = [{name: maps[when][layer] for name, layer in DRAWN.items()} for when in ("before", "after")]

    weights = f"MobileNetV2 weights: {about['weights']}, {about['image_size']} px"
    caption = (
        f"{weights}; fine-tuned from features.{first} on, {study.epochs} epochs of {study.percent:g}% of the images"
    )
    folder = "plots/unfreezing/representations"
    save_figure(draw_maps(images[:DRAWN_IMAGES], *named, caption), f"{folder}/maps.png")
    of_images = f"{caption}. {len(images)} test images, t-SNE of the pooled outputs of features.{LAST}"
    save_figure(draw_embedding(pictures, labels, of_images), f"{folder}/embedding.png")
    by_block = {block: similarity.get(str(block), 1.0) for block in range(LAST + 1)}
    save_figure(draw_similarity(by_block, f"{caption}; {len(images)} test images"), f"{folder}/similarity.png")
    numbers = {f"cka_features.{layer}": value for layer, value in similarity.items()}
    numbers |= {f"like_neighbors_{when}": share_of_like_neighbors(own, labels) for when, own in pooled.items()}
    write_json("metrics/unfreezing/representations.json", {"images": len(images)} | numbers)


if __name__ == "__main__":
    run_stage(main, timing="unfreezing/representations")
