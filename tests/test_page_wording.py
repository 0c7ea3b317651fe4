"""Sentences of the pages on made-up results, each with the finding and with its opposite."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stages.measure.contrasts import list_contrasts
from stages.measure.paired_tests import smallest_p
from stages.reporting.wording import Findings
from stages.tools import page_wording
from stages.tools.study_facts import count_minutes, list_names

NORMS = ["batchnorm", "layernorm", "frn"]
EQUAL = {f"{norm}-{mode}": 0.8 for norm in NORMS for mode in ("noclip", "clip")}
DIFFERENT = EQUAL | {"frn-noclip": 0.7, "frn-clip": 0.7, "batchnorm-clip": 0.85}


def make_findings(rates: dict[str, float], seeds: int = 6) -> Findings:
    """With the given accuracies, which spread by half a point; one of more than a point has the smallest p."""
    spread = np.linspace(-0.0025, 0.0025, seeds)
    rows = [
        {
            "family": family,
            "contrast": title,
            "first": first,
            "second": second,
            "mean": 100 * (rates[first] - rates[second]),
        }
        for family, title, first, second in list_contrasts(NORMS)
    ]
    table = pd.DataFrame(rows)
    counts = table["family"].map(table["family"].value_counts())
    table["p_adjusted"] = np.where(table["mean"].abs() > 1, np.minimum(1, counts * smallest_p(seeds)), 1.0)
    metrics = {
        key: {"test_accuracy": rate, "seeds": seeds}
        | {f"test_accuracy_seed{seed}": rate + shift for seed, shift in enumerate(np.roll(spread, index))}
        for index, (key, rate) in enumerate(rates.items())
    }
    rest = dict.fromkeys(("gradients", "landscapes", "correlations", "errors"), {})
    about = {"clip": 1.0, "placement": "vector", "block_bn_statistics": "frozen"}
    curvature = {key: {"ratio": 0.1} for key in rates}
    return Findings(NORMS, metrics, curvature=curvature, contrasts=table, tests=table, **rest, **about)


def change(findings: Findings, name: str, values: dict[str, float]) -> Findings:
    """With another number in the metrics of every configuration."""
    return replace(findings, metrics={key: own | {name: values[key]} for key, own in findings.metrics.items()})


def test_a_norm_is_said_to_end_below_others_only_where_the_tests_find_it():
    below = EQUAL | {"frn-noclip": 0.7, "frn-clip": 0.7}
    text = page_wording.answer_norms(make_findings(below, seeds=8))
    assert text.startswith("Heads with FRN end below those with BatchNorm and LayerNorm, by ")
    assert ", with clipping and without." in text and text.endswith(
        "Between BatchNorm and LayerNorm no difference is found."
    )
    above = EQUAL | {"frn-noclip": 0.9}
    text = page_wording.answer_norms(make_findings(above, seeds=8))
    assert "Heads with BatchNorm end below those with FRN, by " in text and ", without clipping." in text
    assert "Heads with LayerNorm end below those with FRN" in text and "FRN end below" not in text
    few = page_wording.answer_norms(make_findings(below, seeds=3))
    assert "end below" not in few and few.count("no difference is found") == 3


def test_clipping_is_said_to_change_accuracy_only_where_the_tests_find_it():
    text = page_wording.answer_clipping(make_findings(EQUAL | {"batchnorm-clip": 0.9, "frn-clip": 0.7}, seeds=8))
    assert "points for BatchNorm and \u2212" in text and "points for FRN; for other norms no difference" in text
    assert page_wording.answer_clipping(make_findings(EQUAL, seeds=3)).startswith("It makes no difference")


def test_only_a_norm_below_all_others_in_every_model_is_called_that():
    assert page_wording.describe_ranks(make_findings(DIFFERENT)).startswith("Every head with FRN, of whichever")
    assert page_wording.describe_ranks(make_findings(EQUAL)) == ""


def test_the_direction_of_clippings_effects_is_theirs():
    up = EQUAL | {f"{norm}-clip": 0.85 for norm in ("batchnorm", "layernorm", "frn")}
    assert "none of them down" in page_wording.describe_clip_effects(make_findings(up))
    down = EQUAL | {f"{norm}-clip": 0.75 for norm in ("batchnorm", "layernorm", "frn")}
    assert "none of them up" in page_wording.describe_clip_effects(make_findings(down))
    mixed = make_findings(EQUAL | {"frn-clip": 0.7, "batchnorm-clip": 0.9})
    assert "some up and some down" in page_wording.describe_clip_effects(mixed)
    largest = np.abs([mixed.of_family("clipping")["mean"]]).max()
    assert f"by more than {largest:.2f} points and no single" in page_wording.describe_clip_effects(mixed)


def test_the_reach_of_the_tests_is_that_of_the_seeds():
    text = page_wording.describe_reach(make_findings(DIFFERENT, seeds=8))
    assert "that 8 paired seeds can reach is 0.0078, and 0.047 after" in text and text.endswith("as it could be.")
    assert page_wording.describe_reach(make_findings(DIFFERENT, seeds=3)).endswith(
        "over the 6 contrasts between norms."
    )


@pytest.mark.parametrize(
    "later, said", [(2, "does not raise"), (1, "nothing could have been found"), (-2, "which raises")]
)
def test_what_seeds_added_later_do_to_false_findings_depends_on_how_many_there_were(later, said):
    """Of 8 seeds: with 6 or 7 first nothing could be found among six contrasts, with 10 it could."""
    assert said in page_wording.describe_sittings(make_findings(EQUAL, seeds=8), later)


def test_two_runs_are_compared_over_the_seeds_that_both_have():
    def run(*accuracies):
        return {"frn-clip": {f"test_accuracy_seed{seed}": value for seed, value in enumerate(accuracies)}}

    text = page_wording.compare_runs(run(0.80, 0.82), run(0.81, 0.80, 0.1))
    assert "the first 2 seeds differ by at most 2.00 points for a single model, and 0.50 for a mean" in text


def test_the_largest_and_smallest_gap_are_named():
    findings = make_findings(EQUAL)
    gaps = {"batchnorm-noclip": 0.04, "batchnorm-clip": 0.06, "layernorm-noclip": 0.03, "layernorm-clip": 0.03}
    text = page_wording.describe_gaps(
        change(findings, "generalization_gap", gaps | {"frn-noclip": 0.01, "frn-clip": 0.02})
    )
    assert text == "The gap is largest for BatchNorm (5.0 points, mean of both modes) and smallest for FRN (1.5)."
    text = page_wording.describe_gaps(
        change(findings, "generalization_gap", gaps | {"frn-noclip": 0.1, "frn-clip": 0.1})
    )
    assert "largest for FRN (10.0" in text and "smallest for LayerNorm (3.0)" in text


def test_a_loss_that_rises_at_the_end_is_not_said_to_fall():
    curves = {
        "frn-clip": pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3.0, 1.0, 0.9]}),
        "batchnorm-clip": pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3.0, 1.0, 1.2]}),
    }
    assert page_wording.describe_last_epoch(curves) == (
        "In the last epoch the training loss still changes by \u221210.00% for FRN and +20.00% for BatchNorm."
    )


def make_runs(accuracies: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Best validation accuracies of norms in batches of 4 and of 128."""
    rows = [
        {"norm": norm, "variant": size, "seed": 0, "val_accuracy": value}
        for norm, own in accuracies.items()
        for size, value in zip(("4", "128"), own, strict=True)
    ]
    return pd.DataFrame(rows)


def test_claims_on_small_batches_are_judged_by_the_accuracies():
    text = page_wording.judge_small_batches(make_runs({"layernorm": (0.86, 0.85), "frn": (0.79, 0.81)}))
    assert "+1.00 points for LayerNorm and \u22122.00 points for FRN" in text
    assert "holds here for LayerNorm." in text and "does not hold here for FRN." in text
    text = page_wording.judge_small_batches(make_runs({"layernorm": (0.84, 0.85), "frn": (0.82, 0.81)}))
    assert "holds here for FRN." in text and "does not hold here for LayerNorm." in text
    assert "claim" not in page_wording.judge_small_batches(make_runs({"batchnorm": (0.84, 0.85)}))


def test_more_training_blocks_are_said_to_move_accuracy_only_where_they_do():
    calm, wild = (
        pd.DataFrame({"seed": [0, 0, 0], "val_accuracy": values}) for values in ([0.8, 0.81, 0.82], [0.8, 0.7, 0.9])
    )
    text = page_wording.describe_jumps({18: calm, 14: wild})
    assert "1.00 from features.18 on and 15.00 from features.14 on" in text and "The more blocks train" in text
    assert "The more blocks train" not in page_wording.describe_jumps({18: wild, 14: calm})


def test_transfer_is_judged_by_its_leads_and_gaps():
    few, many = {1: 0.7, 100: 0.8}, {1: 0.4, 100: 0.7}
    assert "where images are few holds here" in page_wording.describe_leads(few, many)
    assert "is not seen" in page_wording.describe_leads(few, {1: 0.69, 100: 0.7})
    assert "it generalizes better here" in page_wording.compare_gaps({1: 0.1, 100: 0.1}, {1: 0.2, 100: 0.15})
    assert page_wording.compare_gaps({1: 0.2, 100: 0.2}, {1: 0.1, 100: 0.15}).startswith(
        "The CNN from scratch has the smaller"
    )
    assert "by at most 10.0 points and in both" in page_wording.compare_gaps({1: 0.2, 100: 0.1}, {1: 0.1, 100: 0.15})


def test_saddles_orders_and_learning_rates_are_told_as_they_are():
    findings = make_findings(EQUAL)
    ratios = {
        key: own | {"ratio": 0.5 if key.startswith("layernorm") else 0.1} for key, own in findings.curvature.items()
    }
    text = page_wording.describe_saddles(replace(findings, curvature=ratios))
    assert "\u22120.10 for BatchNorm, \u22120.50 for LayerNorm and \u22120.10 for FRN" in text
    assert page_wording.describe_order({"a": 0.5, "b": 0.75}) == "Here the order is b (75.0%) and a (50.0%)."
    found = {"common_lr_16": 0.01, "common_lr_64": 0.03}
    assert "0.03, which is that in batches of 64." in page_wording.describe_chosen_lr(found, [16, 64], 0.03)
    assert "none of them" in page_wording.describe_chosen_lr(found, [16, 64], 0.1)


def test_names_and_minutes_of_a_study_are_those_of_its_files(tmp_path):
    for folder in ("metrics/mine", "metrics/timing/mine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "metrics/mine/summary.json").write_text(
        '{"seeds": 1, "test_accuracy_b": 0.5, "test_accuracy_a_2": 0.6}'
    )
    for name in ("a", "b"):
        (tmp_path / f"metrics/timing/mine/{name}.json").write_text('{"seconds": 90.0}')
    assert list_names(tmp_path, "mine") == ["b", "a_2"]
    assert count_minutes(tmp_path, "mine") == "3" and count_minutes(tmp_path, "other") == "-"
