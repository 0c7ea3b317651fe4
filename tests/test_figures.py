"""Figures of the study as it is, of few norms, of many seeds, and of more of MobileNetV2."""

import json
import re
from functools import partial

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from torchvision.models import mobilenet_v2

from stages.models.configurations import MODES
from stages.reporting import curvature_figures, curvature_results, figures
from stages.reporting.captions import describe_study
from stages.reporting.curvature_results import CurvatureResults, load_curvature
from stages.reporting.error_figures import draw_confusion
from stages.reporting.plotting import DPI
from stages.reporting.results import Results
from tests.conftest import STUDIED
from tests.synthetic import repeat_seeds
from tests.test_contrasts import make_predictions


@pytest.fixture(autouse=True)
def study_folder(tmp_path, monkeypatch):
    """Where the captions are read from; figures are closed at the end."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/backbone.json").write_text(json.dumps({"weights": "keras_160", "image_size": 160}))
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


def make_surface(height: float) -> dict[str, np.ndarray]:
    axis = np.linspace(-1, 1, 11)
    loss = 0.3 + height * (axis[:, None] ** 2 + axis**2)
    return {"alphas": axis, "betas": axis, "loss": loss, "accuracy": np.exp(-loss)}


@pytest.fixture
def load(committed):
    """The committed results of some norms; the landscapes, which git does not keep, are made up."""

    def load(norms=STUDIED) -> Results:
        keys = [f"{norm}-{mode}" for norm in norms for mode in MODES]
        return Results(
            norms=list(norms),
            keys=keys,
            metrics={key: json.loads((committed / f"metrics/train/{key}.json").read_text()) for key in keys},
            curves={key: pd.read_csv(committed / f"plots/curves/{key}.csv") for key in keys},
            gradients={key: pd.read_csv(committed / f"plots/gradients/{key}.csv") for key in keys},
            landscapes={key: make_surface(1 + index) for index, key in enumerate(keys)},
            weights="keras_160",
            image_size=160,
        )

    return load


@pytest.fixture
def curvature(committed, monkeypatch) -> CurvatureResults:
    with monkeypatch.context() as context:
        context.chdir(committed)
        backbone = {"weights": "keras_160", "image_size": 160}  # of a file that git does not keep
        context.setattr(curvature_results, "read_caption", partial(describe_study, backbone))
        return load_curvature(STUDIED)


@pytest.mark.parametrize("name", ["gradient_layers", "update_ratios"])
def test_the_layers_of_the_committed_study_are_drawn_as_committed(committed, load, tmp_path, name):
    figures.FIGURES[name](load()).savefig(tmp_path / "drawn.png", dpi=DPI)
    drawn, expected = (
        matplotlib.image.imread(path) for path in (tmp_path / "drawn.png", committed / f"plots/figures/{name}.png")
    )
    assert drawn.shape == expected.shape and np.abs(drawn - expected).mean() < 1e-3  # fonts may be smoothed otherwise


def add_layers(frame: pd.DataFrame, layers: list[str]) -> pd.DataFrame:
    """The frame of one configuration with rows for further layers, before the others as in the files."""
    first = frame[frame["layer"] == "head.fc1.weight"]
    added = [first.assign(layer=layer, norm_mean=first["norm_mean"] * (k + 1)) for k, layer in enumerate(layers)]
    return pd.concat([*added, frame], ignore_index=True)


def list_lines(figure: plt.Figure) -> dict[str, plt.Line2D]:
    """The lines of the first panel by the name in the figure's legend that has their colour and dash."""

    def look(line: plt.Line2D) -> tuple[str, str]:
        return to_hex(line.get_color()), line.get_linestyle()

    (legend,) = figure.legends
    names = {look(line): text.get_text() for line, text in zip(legend.get_lines(), legend.get_texts(), strict=True)}
    lines = figure.axes[0].get_lines()
    named = {names[look(line)]: line for line in lines}
    assert len(names) == len(legend.get_texts()) and len(named) == len(lines), "two lines look alike"
    return named


@pytest.mark.parametrize("trainable_from", [3, 16, 17])
def test_earlier_blocks_are_one_line_each(load, trainable_from):
    """Of 30 to 132 layers: the root of the sum of their squares, per step."""
    results = load(["layernorm"])
    names = [name for name, _ in mobilenet_v2(weights=None).features.named_parameters()]
    layers = [f"features.{name}" for name in names if trainable_from <= int(name.split(".")[0]) < 18]
    results.gradients.update({key: add_layers(frame, layers) for key, frame in results.gradients.items()})
    lines = list_lines(figures.draw_gradient_layers(results))
    assert [name for name in lines if re.fullmatch(r"features\.\d+", name)] == [
        f"features.{k}" for k in range(trainable_from, 18)
    ]
    assert {"features.18.0.weight", "features.18.1.bias", "head.fc2.bias"} <= lines.keys()
    frame = results.gradients["layernorm-noclip"]
    own = frame[frame["layer"].str.startswith("features.17.")]
    squares = own.assign(square=own["norm_mean"] ** 2).groupby(["epoch", "seed"])["square"].sum()
    np.testing.assert_allclose(lines["features.17"].get_ydata(), np.sqrt(squares).groupby("epoch").mean())
    figures.draw_update_ratios(results)


def test_a_head_with_other_modules_and_parameters_is_drawn_too(load):
    results = load(["frn"])
    layers = ["head.attention.in_proj", "head.scale"]
    results.gradients.update({key: add_layers(frame, layers) for key, frame in results.gradients.items()})
    assert {"head.attention.in_proj", "head.scale", "head.norm.eps_l"} <= list_lines(
        figures.draw_gradient_layers(results)
    ).keys()


def assert_captions_fit(figure: plt.Figure) -> None:
    figure.canvas.draw()
    box = figure._supxlabel.get_window_extent()
    assert 0 <= box.x0 and box.x1 <= figure.bbox.x1, figure._supxlabel.get_text()


@pytest.mark.parametrize("norms", [["layernorm"], ["batchnorm", "frn"]], ids=len)
@pytest.mark.parametrize("name", figures.FIGURES)
def test_captions_are_no_wider_than_a_figure_of_few_norms(load, norms, name):
    assert_captions_fit(figures.FIGURES[name](load(norms)))


@pytest.mark.parametrize("name", curvature_figures.FIGURES)
def test_captions_are_no_wider_than_a_figure_of_one_norms_curvature(curvature, name):
    results = CurvatureResults(["frn"], ["frn-noclip", "frn-clip"], curvature.seeds, curvature.details, "caption")
    assert_captions_fit(curvature_figures.FIGURES[name](results))


def test_the_caption_of_one_norms_confusion_fits(rng):
    predictions = {f"frn-{mode}": make_predictions(rng.random((1, 200)) < 0.9) for mode in MODES}
    for found in predictions.values():
        found.labels[:] = np.arange(200) % 10
    assert_captions_fit(draw_confusion(predictions, "MobileNetV2 weights: keras_160, 160 px; 1 seed; 200 test images"))


@pytest.mark.parametrize("seeds", [1, 3, 8, 30])
def test_the_seeds_of_a_configuration_stay_in_its_row(curvature, rng, seeds):
    tables = {key: repeat_seeds(table, seeds, rng) for key, table in curvature.seeds.items()}
    results = CurvatureResults(curvature.norms, curvature.keys, tables, curvature.details, "caption")
    panel = curvature_figures.draw_pairs(results).axes[0]
    rows = np.array([line.get_ydata()[0] for line in panel.get_lines()])
    assert len(rows) == 2 * seeds * len(results.keys)
    np.testing.assert_array_equal(np.round(rows), np.repeat(np.arange(len(results.keys)), 2 * seeds))
