import os

import numpy as np
import pytest
from matplotlib import pyplot as plt

from stages.models.configurations import color_of
from stages.reporting.figures import FIGURES
from stages.reporting.plotting import save_figure
from stages.reporting.results import load_results, summarize_study


@pytest.fixture(scope="module")
def results(tiny):
    before = os.getcwd()
    os.chdir(tiny.folder)
    yield load_results(["batchnorm", "layernorm", "frn"])
    os.chdir(before)


def test_the_summary_is_computed_from_the_metrics(results, tiny):
    summary = summarize_study(results)
    means = {key: tiny.read_json(f"metrics/train/{key}.json")["test_accuracy"] for key in results.keys}
    assert summary["best_test_accuracy"] == max(means.values()) == means[summary["best_configuration"]]
    assert summary["spread_of_means"] == pytest.approx(max(means.values()) - min(means.values()))
    for norm in results.norms:
        clip, noclip = (
            [tiny.read_json(f"metrics/train/{norm}-{mode}.json")[f"test_accuracy_seed{seed}"] for seed in (0, 1)]
            for mode in ("clip", "noclip")
        )
        assert summary[f"clip_effect_{norm}"] == pytest.approx(np.mean(np.subtract(clip, noclip)))
        assert summary[f"clip_effect_{norm}_min"] <= summary[f"clip_effect_{norm}_max"]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_say_whose_weights_they_show(results, name):
    figure = FIGURES[name](results)
    assert results.weights in figure.get_supxlabel() and "2 seeds" in figure.get_supxlabel()
    plt.close(figure)


def test_curves_show_mean_and_range_of_every_configuration(results):
    figure = FIGURES["curves"](results)
    for axes in figure.axes:
        assert len(axes.lines) == len(axes.collections) == 6 and axes.get_ylabel()
    line = figure.axes[3].lines[0]
    expected = results.curves["batchnorm-noclip"].groupby("epoch")["val_accuracy"].mean()
    np.testing.assert_allclose(line.get_ydata(), expected)
    assert line.get_color() == color_of("batchnorm")
    plt.close(figure)


def test_all_landscapes_share_one_colour_scale(results):
    figure = FIGURES["landscape_contours"](results)
    limits = {axes.collections[0].get_clim() for axes in figure.axes[:6]}
    losses = [results.landscapes[key]["loss"] for key in results.keys]
    assert limits == {(min(map(np.min, losses)), max(map(np.max, losses)))}
    plt.close(figure)


def test_a_figure_is_written_the_same_twice(results, tmp_path):
    for name in ("first", "second"):
        save_figure(FIGURES["accuracy"](results), tmp_path / f"{name}.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.png", "second.png"]
