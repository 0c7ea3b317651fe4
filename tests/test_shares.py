import pandas as pd
import pytest
import torch

from stages.baseline.share_figures import Comparison, draw_bars, draw_shares, first_epoch_at
from stages.data.shares import choose_share


def test_a_share_is_stratified_and_depends_on_its_size_alone():
    labels = torch.arange(1000) % 10
    chosen = choose_share(labels, 5)
    assert torch.bincount(labels[chosen]).tolist() == [5] * 10
    assert torch.equal(chosen, choose_share(labels, 5)) and torch.equal(chosen, chosen.unique())
    assert torch.equal(choose_share(labels, 100), torch.arange(1000))


@pytest.fixture
def comparison():
    rows = [
        {
            "seed": s,
            "epoch": e,
            "train_loss": 1.0,
            "train_accuracy": 0.5,
            "val_loss": 2.0,
            "val_accuracy": 0.1 * e + 0.05 * s,
        }
        for s in (0, 1)
        for e in range(1, 6)
    ]
    metrics = {
        p: {
            "test_accuracy": p / 200 + 0.05,
            "test_accuracy_seed0": p / 200,
            "test_accuracy_seed1": p / 200 + 0.1,
            "generalization_gap": 0.02,
        }
        for p in (10.0, 100.0)
    }
    ways = ("transfer", "scratch")
    return Comparison(dict.fromkeys(ways, metrics), dict.fromkeys(ways, pd.DataFrame(rows)), 5000)


def test_the_first_epoch_at_a_level_is_a_mean_over_seeds(comparison):
    curves = comparison.curves["scratch"]
    assert first_epoch_at(curves, 0.33) == 3.5  # epochs 4 and 3
    assert first_epoch_at(curves, 0.53) is None  # the first seed never is


def test_the_figures_show_images_and_per_cent(comparison):
    accuracy, gap = draw_shares(comparison, "caption").axes
    assert accuracy.lines[0].get_xdata() == pytest.approx([500, 5000])
    assert accuracy.lines[0].get_ydata() == pytest.approx([10, 55])
    assert gap.lines[0].get_ydata() == pytest.approx([2, 2])


def test_the_bars_show_accuracies_and_how_soon_they_are_reached(comparison):
    curves = comparison.curves["scratch"].assign(val_accuracy=lambda table: table["val_accuracy"] + 0.2)
    slow = Comparison(comparison.metrics, comparison.curves | {"transfer": curves}, comparison.images)
    accuracy, epochs = draw_bars(slow, "caption").axes
    assert [bar.get_height() for bar in accuracy.patches] == pytest.approx([10, 55] * 2)
    assert [bar.get_height() for bar in epochs.patches] == pytest.approx([4, 5, 0, 0, 0, 0])
    assert [text.get_text() for text in epochs.texts] == ["4.0", "5.0", "never", "never", "never", "never"]
    assert [label.get_text() for label in accuracy.get_xticklabels()] == ["500", "5,000"]
