"""Which weights, image size and seeds a figure speaks of."""

from stages.lib.files import read_json


def caption_of_study(seeds: int) -> str:
    backbone = read_json("models/backbone.json")
    plural = "s" if seeds > 1 else ""
    return f"MobileNetV2 weights: {backbone['weights']}, {backbone['image_size']} px; {seeds} seed{plural}"
