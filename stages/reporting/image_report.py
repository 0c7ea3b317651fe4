"""The figures of a study that trains from images, and its summary."""

import pandas as pd

from stages.core.files import StageError, read_json, write_csv, write_json
from stages.data.cifar10 import CIFAR10Data
from stages.measure.reference_contrasts import compare_with_first
from stages.reporting.image_figures import draw_accuracies, draw_curves, draw_frontier, draw_wrong_images
from stages.reporting.plotting import save_figure
from stages.training.predictions import load_predictions


def report_study(study: str, labels: dict[str, str], caption: str) -> None:
    """Draw what was trained, and sum it up, in the folders of `study`.

    `labels` has every variant, the one that others are compared with first, and how a reader should see it.
    """
    try:
        metrics = {label: read_json(f"metrics/{study}/train/{name}.json") for name, label in labels.items()}
        curves = {label: pd.read_csv(f"plots/{study}/curves/{name}.csv") for name, label in labels.items()}
    except FileNotFoundError as error:
        raise StageError(f"{error.filename} does not exist; run `dvc repro stages/{study}/dvc.yaml`") from None
    figures = {
        "curves": draw_curves(curves, caption),
        "accuracy": draw_accuracies(metrics, caption),
    }
    if len({own["multiply_adds"] for own in metrics.values()}) > 1:
        figures["frontier"] = draw_frontier(metrics, caption)
    images = CIFAR10Data.load().images("test")
    predictions = load_predictions(list(labels), f"data/{study}")
    for name, found in predictions.items():
        figures[f"wrong_{name}"] = draw_wrong_images(images, found, labels[name], caption)
    for name, figure in figures.items():
        save_figure(figure, f"plots/{study}/figures/{name}.png")
    contrasts = compare_with_first(predictions)
    write_csv(f"plots/{study}/contrasts.csv", contrasts, "%.6g")
    summary = {f"test_accuracy_{name}": metrics[label]["test_accuracy"] for name, label in labels.items()}
    write_json(f"metrics/{study}/summary.json", {"seeds": next(iter(metrics.values()))["seeds"]} | summary)
