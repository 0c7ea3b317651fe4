"""What stands below a figure: the weights, image size and seeds that it speaks of, and how to read it."""

from textwrap import fill

from matplotlib.figure import Figure

from stages.core.files import read_json

CHARACTERS = 130  # of a sans-serif font of one point, on average, in an inch
GRAY = "#555555"


def describe_study(backbone: dict, seeds: int) -> str:
    """From models/backbone.json."""
    plural = "s" if seeds > 1 else ""
    return f"MobileNetV2 weights: {backbone['weights']}, {backbone['image_size']} px; {seeds} seed{plural}"


def read_caption(seeds: int) -> str:
    """`describe_study` of the weights that are there."""
    return describe_study(read_json("models/backbone.json"), seeds)


def add_caption(figure: Figure, *lines: str, points: int = 7, color: str = GRAY) -> None:
    """Write lines below the figure, broken where they do not fit its width at this size of type."""
    width = int(CHARACTERS / points * figure.get_figwidth())
    fitting = [fill(part, width) for line in lines for part in line.splitlines()]
    figure.supxlabel("\n".join(fitting), fontsize=points, color=color)
