import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from stages.core.params import load_params
from stages.reporting.image_figures import draw_accuracies, draw_curves, draw_frontier, draw_wrong_images, find_frontier
from stages.reporting.image_labels import describe_recipe, name_variant
from stages.training.predictions import Predictions
from tests.conftest import ROOT


def make_metrics(first, second, parameters, multiply_adds):
    accuracies = {"test_accuracy_seed0": first, "test_accuracy_seed1": second, "test_accuracy": (first + second) / 2}
    return accuracies | {"parameters": parameters, "multiply_adds": multiply_adds}


METRICS = {
    "small": make_metrics(0.70, 0.72, 10, 100),
    "bad": make_metrics(0.60, 0.62, 20, 90),
    "large": make_metrics(0.80, 0.80, 90, 900),
}


def test_the_frontier_leaves_out_what_another_beats_at_no_greater_cost():
    costs, accuracies = np.array([3, 1, 2, 2, 5]), np.array([70.0, 60, 65, 69, 70])
    assert find_frontier(costs, accuracies).tolist() == [1, 3, 0]


def test_accuracies_are_drawn_in_per_cent_of_every_seed():
    axes = draw_accuracies(METRICS, "caption").axes[0]
    assert axes.lines[0].get_xdata() == pytest.approx([70, 72])
    assert [text.get_text() for text in axes.texts] == ["71.00", "61.00", "80.00"]


@pytest.mark.parametrize("draw", [draw_accuracies, draw_frontier])
def test_no_variants_name_and_no_caption_leaves_the_figure(draw):
    params = load_params(ROOT / "params.yaml").mobilenetv2
    names = [name_variant(name) for name in params.variants]
    figure = draw(dict.fromkeys(names, METRICS["small"]), describe_recipe(params))
    figure.draw_without_rendering()
    ticks = [label for axes in figure.axes for label in axes.get_xticklabels()]  # some lie beyond the axes, unseen
    for text in figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text() and artist not in ticks):
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text


def test_the_frontier_figure_has_a_panel_per_cost():
    parameters, products = draw_frontier(METRICS, "caption").axes
    assert parameters.lines[0].get_xdata().tolist() == [10, 90]
    assert products.lines[0].get_xdata().tolist() == [90, 100, 900]
    assert [line.get_label() for line in products.lines[1:]] == list(METRICS)
    looks = {(line.get_marker(), line.get_color()) for line in products.lines[1:]}
    assert len(looks) == len(METRICS)


def test_curves_are_means_over_seeds():
    rows = [
        {"seed": s, "epoch": e, "train_loss": 1 + s, "val_loss": 2 + s, "train_accuracy": 0.5, "val_accuracy": 0.1 * s}
        for s in (0, 1)
        for e in (1, 2)
    ]
    loss, accuracy = draw_curves({"one": pd.DataFrame(rows)}, "caption").axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[1.5, 1.5], [2.5, 2.5]]
    assert accuracy.lines[1].get_ydata().tolist() == [0.05, 0.05]


def test_many_variants_get_a_panel_each_before_the_others_in_grey():
    tables = {
        f"variant {k}": pd.DataFrame({"seed": [0, 1], "epoch": [1, 1], "val_accuracy": [0.1 * k, 0.1 * k + 0.02]})
        for k in range(9)
    }
    panels = [axes for axes in draw_curves(tables, "caption").axes if axes.axison]
    assert [axes.get_title() for axes in panels] == list(tables)
    for k, axes in enumerate(panels):
        assert len(axes.lines) == 10
        assert axes.lines[-1].get_ydata() == pytest.approx([0.1 * k + 0.01])


def test_wrong_images_come_with_the_most_confident_errors_first():
    probabilities = np.full((1, 4, 10), 0.01)
    for k, (label, confidence) in enumerate([(1, 0.5), (2, 0.9), (3, 0.8), (0, 0.99)]):
        probabilities[0, k, label] = confidence
    found = Predictions(np.array([0]), np.array([0, 0, 0, 0]), probabilities)
    images = np.zeros((4, 32, 32, 3), np.uint8)
    figure = draw_wrong_images(images, found, "plain", "caption")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["airplane\nseen as bird", "airplane\nseen as cat", "airplane\nseen as automobile"]
    assert "3 of 4 test images are wrong" in figure.get_suptitle()
