import pandas as pd
import pytest
from matplotlib import pyplot as plt

from stages.cache_study.view_comparison import draw_views, summarize_views

ACCURACIES = {(1, 0): [0.5, 0.6], (1, 1): [0.7, 0.5], (4, 0): [0.6, 0.8], (4, 1): [0.6, 0.7]}


@pytest.fixture
def curves():
    rows = [
        {"views": views, "seed": seed, "epoch": epoch, "val_accuracy": accuracy}
        for (views, seed), run in ACCURACIES.items()
        for epoch, accuracy in enumerate(run, 1)
    ]
    return pd.DataFrame(rows)


def test_best_epochs_are_compared_seed_by_seed(curves):
    summary = summarize_views(curves)
    assert summary == {
        "seeds": 2,
        "val_accuracy_views1": pytest.approx(0.65),
        "val_accuracy_views1_std": pytest.approx(0.1 / 2**0.5),
        "below_most_views1": pytest.approx(0.1),
        "val_accuracy_views4": pytest.approx(0.75),
        "val_accuracy_views4_std": pytest.approx(0.1 / 2**0.5),
        "below_most_views4": 0,
    }
    alone = summarize_views(curves[curves["seed"] == 0])
    assert alone["val_accuracy_views1_std"] is None and alone["below_most_views1"] == pytest.approx(0.2)


def test_the_figure_shows_every_seed_and_says_whose_weights(curves):
    figure = draw_views(curves, "frn", {"weights": "keras_160", "image_size": 160})
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["1 view", "4 views"]
    assert right.lines[0].get_ydata().tolist() == [0.6, 0.7] and right.lines[2].get_ydata().tolist() == [0.8, 0.7]
    assert "keras_160" in figure.get_supxlabel() and "FRN head" in figure.get_supxlabel()
    plt.close(figure)
