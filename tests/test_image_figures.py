import numpy as np
import pandas as pd
import pytest

from stages.lib.image_figures import draw_accuracies, draw_curves, draw_frontier, draw_wrong_images, find_frontier
from stages.lib.predictions import Predictions

METRICS = {
    "small": {"test_accuracy_seed0": 0.70, "test_accuracy_seed1": 0.72, "parameters": 10, "multiply_adds": 100},
    "bad": {"test_accuracy_seed0": 0.60, "test_accuracy_seed1": 0.62, "parameters": 20, "multiply_adds": 90},
    "large": {"test_accuracy_seed0": 0.80, "test_accuracy_seed1": 0.80, "parameters": 90, "multiply_adds": 900},
}


def test_the_frontier_leaves_out_what_another_beats_at_no_greater_cost():
    costs, accuracies = np.array([3, 1, 2, 2, 5]), np.array([70.0, 60, 65, 69, 70])
    assert find_frontier(costs, accuracies).tolist() == [1, 3, 0]


def test_accuracies_are_drawn_in_per_cent_of_every_seed():
    axes = draw_accuracies(METRICS, "caption").axes[0]
    assert axes.lines[0].get_xdata() == pytest.approx([70, 72])
    assert [text.get_text() for text in axes.texts] == ["71.00", "61.00", "80.00"]


def test_the_frontier_figure_has_a_panel_per_cost():
    parameters, products = draw_frontier(METRICS, "caption").axes
    assert parameters.lines[0].get_xdata().tolist() == [10, 90]
    assert products.lines[0].get_xdata().tolist() == [90, 100, 900]


def test_curves_are_means_over_seeds():
    rows = [
        {"seed": s, "epoch": e, "train_loss": 1 + s, "val_loss": 2 + s, "train_accuracy": 0.5, "val_accuracy": 0.1 * s}
        for s in (0, 1)
        for e in (1, 2)
    ]
    loss, accuracy = draw_curves({"one": pd.DataFrame(rows)}, "caption").axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[1.5, 1.5], [2.5, 2.5]]
    assert accuracy.lines[1].get_ydata().tolist() == [0.05, 0.05]


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
