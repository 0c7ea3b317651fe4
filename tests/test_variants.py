import numpy as np
import pandas as pd
import pytest
import torch

from stages.core.params import ParamsError, load_params
from stages.measure.saturation import saturated_share
from stages.variants.studies import STUDIES, list_variants
from stages.variants.variant_figures import PANELS, draw_variants, summarize_runs, summarize_variants
from tests.conftest import ROOT
from tests.synthetic import make_model


@pytest.fixture
def table():
    """Two norms, two variants, two seeds, two epochs; the accuracies differ by 0.1 and 0.01 and 0.001."""
    rows = [
        {
            "norm": norm, "variant": variant, "seed": seed, "epoch": epoch, "saturated": 0.5, "grad_norm": 1.0 * epoch,
            "val_accuracy": 0.5 + 0.1 * (norm == "frn") + 0.01 * (variant == "4") + 0.001 * seed - 0.2 * (epoch == 2),
            "clip_fraction": 0.25 * epoch, "clip_coefficient": 1.0, "update_ratio": 1e-3, "saturated_at_start": 0.9,
            "learned_eps": 1e-4 * 10**epoch if norm == "frn" and variant == "2" else None,
        }
        for norm in ("batchnorm", "frn") for variant in ("2", "4") for seed in (0, 1) for epoch in (1, 2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_every_study_lists_its_variants():
    params = load_params(ROOT / "params.yaml")
    assert list_variants(params, "thresholds")["none"] == {"clip": None}
    assert list_variants(params, "thresholds")["0.25"] == {"clip": 0.25}
    assert list_variants(params, "batch_sizes")["128"] == {"batch_size": 128}
    assert list_variants(params, "placements") == {
        "vector": {"placement": "vector"},
        "spatial": {"placement": "spatial"},
    }
    with pytest.raises(ParamsError, match="'epochs' is no study of variants; it must be one of thresholds, "):
        list_variants(params, "epochs")
    assert set(PANELS) == set(STUDIES)


def test_runs_are_summed_up_by_their_best_epoch(table):
    assert summarize_variants(table) == {
        "seeds": 2,
        "val_accuracy_batchnorm_2": pytest.approx(0.5005),
        "val_accuracy_batchnorm_4": pytest.approx(0.5105),
        "val_accuracy_frn_2": pytest.approx(0.6005),
        "val_accuracy_frn_4": pytest.approx(0.6105),
    }
    assert (summarize_runs(table)["grad_norm"] == 1.5).all() and len(summarize_runs(table)) == 8


def test_the_figure_shows_every_norm_and_seed(table):
    figure = draw_variants(table, "thresholds", "weights: w")
    accuracy, clipped, updates = figure.axes
    assert updates.lines[1].get_ydata().tolist() == [1e-3, 1e-3]
    assert [line.get_label() for line in accuracy.lines[1::2]] == ["BatchNorm", "FRN"]
    assert accuracy.lines[0].get_ydata().tolist() == pytest.approx([0.5, 0.501, 0.51, 0.511])
    assert clipped.lines[1].get_ydata().tolist() == [0.375, 0.375]


def test_placements_show_the_epsilon_that_frn_learns(table):
    *_, epsilon = draw_variants(table, "placements", "weights: w").axes
    assert [line.get_ydata().tolist() for line in epsilon.lines] == [pytest.approx([1e-3, 1e-2])] * 2
    without = draw_variants(table.assign(learned_eps=np.nan), "placements", "weights: w")
    assert len(without.axes) == len(PANELS["placements"])


def test_saturated_units_are_those_whose_normalised_value_is_nearly_one(backbone_state):
    """FRN's own output, with scale 1 and shift 0, is the normalised value."""
    torch.manual_seed(0)
    model = make_model(backbone_state, "frn", seed=0).eval()
    x = torch.randn(150, 2, 2, 320).half()
    with torch.no_grad():
        model.head.norm.eps_l.fill_(1e-4)
        values = model.head.norm(model.head.project(model.activate_block(x)))
    share = saturated_share(model, x)
    assert share == pytest.approx((values.abs() > 0.99).double().mean().item()) and 0.05 < share < 0.95
    assert saturated_share(make_model(backbone_state, "layernorm", seed=0), x) is None
    assert saturated_share(make_model(backbone_state, "frn", seed=0, placement="spatial"), x) is None


def test_a_tiny_study_of_thresholds(scratch_copy):
    """A threshold that every gradient exceeds clips every step, one that none reaches changes nothing."""
    scratch_copy.set_params("variants.epochs=1", "variants.seeds=[0]", "variants.thresholds=[1.0e-3,1.0e+9]")
    scratch_copy.stage("variants.train", "thresholds")
    table = pd.read_csv(scratch_copy.folder / "plots/variants/thresholds.csv").set_index(["norm", "variant"])
    assert len(table) == 9
    for norm in ("batchnorm", "layernorm", "frn"):
        never, always = table.loc[(norm, "1e+09")], table.loc[(norm, "0.001")]
        assert never["clip_fraction"] == 0 and always["clip_fraction"] == 1
        pd.testing.assert_series_equal(never, table.loc[(norm, "none")], check_names=False)
        assert always["train_loss"] != never["train_loss"]
    scratch_copy.stage("variants.summary", "thresholds")
    metrics = scratch_copy.read_json("metrics/variants/thresholds.json")
    assert metrics["val_accuracy_frn_none"] == pytest.approx(table.loc[("frn", "none"), "val_accuracy"])
    assert np.isfinite(table.loc["frn", "saturated"]).all() and table.loc["batchnorm", "saturated"].isna().all()
    start = table[table["epoch"] == 1].loc["frn", "learned_eps"]
    np.testing.assert_allclose(start, load_params(ROOT / "params.yaml").train.frn_learned_eps, rtol=1e-5)
    assert "is no study" in scratch_copy.stage("variants.train", "colours", fails=True)
