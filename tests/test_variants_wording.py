import pandas as pd
import pytest

from stages.variants import variants_wording as wording


def make_runs(accuracies: dict, clipped: dict | None = None, ratio: float = 1e-3) -> pd.DataFrame:
    """Two seeds, 0.2 points to either side of the accuracies (norm -> variant -> per cent)."""
    rows = [
        {
            "norm": norm, "variant": variant, "seed": seed, "val_accuracy": value / 100 + 0.002 * (2 * seed - 1),
            "clip_fraction": (clipped or {}).get(variant, 0.0), "update_ratio": ratio * (1.1 if variant == "1" else 1),
        }
        for norm, own in accuracies.items() for variant, value in own.items() for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def thresholds():
    accuracies = {"batchnorm": {"none": 80.0, "1": 79.5, "10": 80.25}, "frn": {"none": 70.0, "1": 71.5, "10": 70.0}}
    return make_runs(accuracies, {"1": 0.9, "10": 0.5})


def test_where_clipping_bites_is_the_largest_threshold_that_clips_half_of_the_steps(thresholds):
    sentence = wording.describe_bite(thresholds)
    assert "is 10 for BatchNorm and 10 for FRN." in sentence and "within 10% of" in sentence
    fewer = thresholds.assign(clip_fraction=thresholds["clip_fraction"].where(thresholds["variant"] != "10", 0.49))
    assert "is 1 for BatchNorm and 1 for FRN." in wording.describe_bite(fewer)
    assert "is none of them for BatchNorm" in wording.describe_bite(thresholds.assign(clip_fraction=0.1))


def test_what_clipping_costs_stands_beside_what_seeds_do(thresholds):
    sentence = wording.describe_thresholds(thresholds)
    assert "by \u22120.50 points (BatchNorm at 1) to +1.50 (FRN at 1)" in sentence
    assert "two seeds of one setting differ by up to 0.40." in sentence


def test_batch_sizes_name_the_leaders_at_both_ends():
    accuracies = {"batchnorm": {"4": 78.0, "64": 80.0, "128": 79.0}, "layernorm": {"4": 79.0, "64": 79.5, "128": 80.0}}
    sentence = wording.describe_batch_sizes(make_runs(accuracies))
    assert sentence.startswith(
        "In batches of 4 LayerNorm has the highest mean validation accuracy, as in batches of 128."
    )
    assert "2.00 for BatchNorm and 1.00 for LayerNorm" in sentence
    accuracies["batchnorm"]["128"] = 81.0
    assert "in batches of 128 BatchNorm." in wording.describe_batch_sizes(make_runs(accuracies))


def test_placements_give_the_gain_of_the_map():
    accuracies = {"batchnorm": {"vector": 80.0, "spatial": 79.0}, "frn": {"vector": 78.0, "spatial": 80.25}}
    assert "by \u22121.00 points for BatchNorm and +2.25 points for FRN." in wording.describe_placements(
        make_runs(accuracies)
    )


def test_epsilon_goes_from_the_first_to_the_last_epoch():
    table = pd.DataFrame(
        [(1, 1e-4, 0.97, 0.3), (2, 0.05, 0.97, 0.3), (1, None, None, None)],
        columns=["epoch", "learned_eps", "saturated_at_start", "saturated"],
    )
    assert "from 0.0001 to 0.05 (" in wording.describe_epsilon(table)
    assert wording.describe_epsilon(table).endswith("from 97% to 30%.")
