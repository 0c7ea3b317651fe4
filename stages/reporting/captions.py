"""Which weights, image size and seeds a figure speaks of."""

from textwrap import fill

from stages.core.files import read_json

CHARACTERS = 130  # of a sans-serif font of one point, on average, in an inch


def caption_of_study(seeds: int) -> str:
    backbone = read_json("models/backbone.json")
    plural = "s" if seeds > 1 else ""
    return f"MobileNetV2 weights: {backbone['weights']}, {backbone['image_size']} px; {seeds} seed{plural}"


def wrap_caption(caption: str, inches: float, points: int) -> str:
    """The caption in lines that fit a figure of this width, at this size of type."""
    return "\n".join(fill(line, int(CHARACTERS / points * inches)) for line in caption.splitlines())
