"""Confusion matrices, accuracy per class, and galleries of the test images that are misclassified or contested."""

from stages.core.files import write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.data.cifar10 import CIFAR10Data
from stages.measure.misclassified import accuracy_per_class, contested_images, hardest_images, summarize_errors
from stages.models.configurations import list_keys
from stages.reporting.captions import read_caption
from stages.reporting.error_figures import (
    draw_accuracy_per_class,
    draw_confusion,
    draw_images,
    title_of_dispute,
    title_of_errors,
)
from stages.reporting.plotting import save_figure
from stages.training.predictions import load_predictions

GALLERY = 40  # images


def main(params: Params) -> None:
    predictions = load_predictions(list_keys(params.norms))
    images = CIFAR10Data.load().images("test")
    models = len(list_keys(params.norms)) * len(params.seeds)
    caption = f"{read_caption(len(params.seeds))}; {len(images)} test images"
    hardest, contested = hardest_images(predictions), contested_images(predictions)
    figures = {
        "confusion": draw_confusion(predictions, caption),
        "classes": draw_accuracy_per_class(accuracy_per_class(predictions), caption),
        "hardest": draw_images(
            images[hardest[:GALLERY]],
            [title_of_errors(predictions, position) for position in hardest[:GALLERY]],
            f"Wrong in all {models} models: {len(hardest)} images, the least likely to be right first",
            caption,
        ),
        "contested": draw_images(
            images[contested[:GALLERY]],
            [title_of_dispute(predictions, position) for position in contested[:GALLERY]],
            f"Right in all seeds of one configuration, wrong in all of another: {len(contested)} images",
            f"{caption}. Below the class: norms that are right in most of their models",
        ),
    }
    for name, figure in figures.items():
        save_figure(figure, f"plots/errors/{name}.png")
    write_json("metrics/errors.json", summarize_errors(predictions))
    print(f"{len(hardest)} test images are wrong in every model, {len(contested)} divide the configurations")


if __name__ == "__main__":
    run_stage(main, timing="errors")
