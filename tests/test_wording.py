from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stages.measure.contrasts import compare_over_images, compare_over_seeds
from stages.reporting import wording
from stages.reporting.phrases import join, signed, span
from stages.reporting.wording import Findings
from tests.test_contrasts import make_predictions

NORMS = ["batchnorm", "layernorm", "frn"]


def make_findings(rng, rates, seeds=6, placement="vector"):
    """A study whose configurations are right with the given probabilities, key -> rate."""
    ease = rng.random(2000)  # shared by all, so that differences between equal rates are small
    predictions = {
        key: make_predictions(ease + 0.02 * rng.standard_normal((seeds, 2000)) < rate) for key, rate in rates.items()
    }
    metrics = {
        key: {
            "test_accuracy": found.correct.mean(), "test_accuracy_std": found.correct.mean(1).std(ddof=1),
            "seeds": seeds, "clip_fraction": 1.0, "clip_coefficient": 0.25,
        } | {f"test_accuracy_seed{seed}": value for seed, value in enumerate(found.correct.mean(1))}
        for key, found in predictions.items()
    }  # fmt: skip
    gradient = {"grad_norm": 2.0, "grad_to_weight": 0.1, "cosine": 0.2, "noise_scale": None, "snr_median": 0.1}
    return Findings(
        norms=NORMS,
        metrics=metrics,
        gradients={key: gradient | {"grad_norm": index + 1.0} for index, key in enumerate(rates)},
        landscapes={key: {"flat_share": 0.1 * index} for index, key in enumerate(rates)},
        curvature={
            key: dict.fromkeys(("lambda_min", "trace", "sharpness_box", "sharpness_ball"), -0.5)
            | {"lambda_max": 10.0 * (index + 1), "ratio": 0.1}
            for index, key in enumerate(rates)
        },
        correlations={"models": 36, "all_trace": 0.5, "all_ratio": 0.1, "all_significant": 1}
        | {"within_trace": 0.1, "within_ratio": 0.0, "within_significant": 0},
        errors={"always_right": 0.5, "always_wrong": 0.05, "contested": 0.01},
        contrasts=compare_over_seeds(predictions, NORMS),
        tests=compare_over_images(predictions, NORMS),
        clip=1.0,
        placement=placement,
        block_bn_statistics="frozen",
    )


EQUAL = {f"{norm}-{mode}": 0.8 for norm in NORMS for mode in ("noclip", "clip")}
DIFFERENT = EQUAL | {"frn-noclip": 0.7, "frn-clip": 0.7, "batchnorm-clip": 0.85}


def test_with_three_seeds_nothing_is_called_significant_however_different(rng):
    findings = make_findings(rng, DIFFERENT, seeds=3)
    assert "p-value of a sign-flip test is 0.25: no difference can be significant" in wording.describe_power(findings)
    for family in ("norms", "clipping"):
        assert "none of the" in wording.describe_significance(findings, family)
    assert "(not significant, p = 0.75)" in wording.describe_clipping(findings, "batchnorm")
    assert "no change is significant" in wording.recommend_clipping(findings)


def test_with_more_seeds_real_effects_are_named_and_others_are_not(rng):
    findings = make_findings(rng, DIFFERENT, seeds=9)
    assert "would be found with a probability of 80%" in wording.describe_power(findings)
    text = wording.describe_significance(findings, "clipping")
    assert (
        "1 of the 3 contrasts of clipping are significant" in text and "BatchNorm: clipped - no clipping (+5." in text
    )
    assert wording.recommend_clipping(findings).startswith("Clip with BatchNorm: ")
    assert "(significant, p = 0.012)" in wording.describe_clipping(findings, "batchnorm")
    assert "not significant" in wording.describe_clipping(findings, "layernorm")


def test_an_effect_that_correction_takes_away_is_not_called_significant(rng):
    """Six seeds of one sign have p = 0.03, and 0.09 after correction over three contrasts."""
    findings = make_findings(rng, DIFFERENT, seeds=6)
    assert "(not significant, p = 0.094)" in wording.describe_clipping(findings, "batchnorm")
    assert "no change is significant" in wording.recommend_clipping(findings)


def test_the_recommended_norms_are_those_close_to_the_best(rng):
    text = wording.recommend_norm(make_findings(rng, DIFFERENT))
    assert (
        text.startswith("BatchNorm and LayerNorm are within 0.5 points") and "FRN on a pooled vector was below" in text
    )
    assert text.endswith("So nothing is recommended against FRN.")
    text = wording.recommend_norm(make_findings(rng, EQUAL))
    assert text.startswith("BatchNorm, LayerNorm and FRN are within") and "below" not in text
    text = wording.recommend_norm(make_findings(rng, EQUAL | {"layernorm-noclip": 0.9}))
    assert text.startswith("Start with LayerNorm.")


def test_the_ranking_is_by_mean_test_accuracy(rng):
    findings = make_findings(rng, DIFFERENT)
    best, lowest = findings.ranking[0], findings.ranking[-1]
    assert best == "batchnorm-clip" and lowest.startswith("frn")
    text = wording.describe_ranking(findings)
    assert text.startswith(f"BatchNorm, clipped has the highest mean test accuracy, {findings.accuracy(best):.2f}%")


def test_frn_is_explained_only_where_it_fell_behind_on_a_vector(rng):
    assert "little more than its sign" in wording.explain_distances(make_findings(rng, DIFFERENT))
    assert wording.explain_distances(make_findings(rng, EQUAL)) == ""
    on_the_map = make_findings(rng, DIFFERENT, placement="spatial")
    assert wording.explain_distances(on_the_map) == "" and "on the feature map" in wording.recommend_norm(on_the_map)


def test_a_study_of_one_norm_has_a_ranking_of_two(rng):
    findings = make_findings(rng, EQUAL | {"frn-clip": 0.9})
    alone = {key: metrics for key, metrics in findings.metrics.items() if key.startswith("frn")}
    text = wording.describe_ranking(replace(findings, norms=["frn"], metrics=alone))
    assert text.startswith("FRN, clipped has the highest") and "before FRN, no clipping with" in text
    assert "lowest" not in text


@pytest.mark.parametrize("seeds", [1, 9])
def test_of_one_norm_nothing_is_said_beside_others(rng, seeds):
    findings = make_findings(rng, EQUAL | {"frn-clip": 0.9}, seeds)
    rows, tests = (table[table["contrast"].str.startswith("FRN: ")] for table in (findings.contrasts, findings.tests))
    alone = replace(findings, norms=["frn"], contrasts=rows, tests=tests)
    assert wording.describe_significance(alone, "norms") == "FRN alone was studied: there is no contrast between norms."
    assert wording.recommend_norm(alone) == "FRN alone was studied: which norm to choose is left open."
    text = wording.describe_significance(alone, "clipping")
    verdict = (
        "is significant after Holm's correction: FRN: clipped" if seeds == 9 else "is not significant after Holm's"
    )
    assert f"the only contrast of clipping {verdict}" in text and text.endswith(f" of {seeds} cases.")
    assert f"With {seeds} paired seed{'s' if seeds > 1 else ''}" in wording.describe_power(alone)


def test_claims_are_set_beside_what_was_found(rng):
    rows = wording.compare_with_claims(make_findings(rng, DIFFERENT))
    assert [row[2] for row in rows] == ["not seen", "not seen"] and "+5." in rows[1][1]
    best = wording.compare_with_claims(make_findings(rng, EQUAL | {"frn-noclip": 0.9}))
    assert best[0][2] == "agrees"
    table = wording.tabulate_claims(make_findings(rng, EQUAL))
    assert len(table) == 6 and table[0][:3] == ["BatchNorm, no clipping", "89.64", "90.50"]


def test_tables_print_every_contrast_and_configuration(rng):
    findings = make_findings(rng, DIFFERENT, seeds=3)
    contrasts = wording.tabulate_contrasts(findings)
    assert len(contrasts) == 9 and {row[-1] for row in contrasts} == {"none"}
    assert contrasts[0][0] == "BatchNorm: clipped \u2212 no clipping"
    gradients = wording.tabulate_gradients(findings)
    assert [row[1] for row in gradients] == ["1.00", "2.00", "3.00", "4.00", "5.00", "6.00"]
    assert gradients[0][4] == "not resolved"


def test_the_floor_of_signal_to_noise_is_what_pure_noise_shows(rng):
    noise = rng.normal(size=(64, 20_000))
    ratio = np.abs(noise.mean(0)) / noise.std(0, ddof=1)
    assert wording.snr_without_signal(64) == pytest.approx(np.median(ratio), rel=0.03)


def test_flatness_is_called_no_predictor_only_where_the_flattest_is_the_worst(rng):
    worst = make_findings(rng, EQUAL | {"frn-clip": 0.6})  # the last has the largest flat share
    assert "predicts nothing" in wording.describe_landscapes(worst)
    assert "predicts nothing" not in wording.describe_landscapes(make_findings(rng, EQUAL | {"frn-clip": 0.9}))


@pytest.mark.parametrize(("values", "text"), [([0.25], "0.25"), ([0.251, 0.249], "0.25"), ([0.5, 0.1], "0.10 to 0.50")])
def test_a_span_of_equal_numbers_is_one(values, text):
    assert span(values) == text and span(pd.Series(values)) == text


def test_lists_of_words_are_joined_as_one_writes():
    assert join(["a"]) == "a" and join(["a", "b"]) == "a and b"
    assert join(["a", "b", "c"]) == "a, b and c"
    assert signed(-0.5) == "\u22120.50" and np.isclose(float(signed(1.5)), 1.5)


@pytest.mark.parametrize(("rate", "verdict"), [(0.87, "within that range"), (0.7, "not all within 85 to 90%")])
def test_a_neighbours_claim_is_judged_by_the_data(rng, rate, verdict):
    rows = wording.tabulate_others(make_findings(rng, {key: rate for key in EQUAL}))
    assert len(rows) == 4 and all(len(row) == 4 for row in rows)
    assert verdict in rows[0][3] and "not the same setting" in rows[3][3]
    assert rows[1][3] == rows[2][3] == "Not part of this report."


def test_curvature_is_told_by_the_extremes_and_by_what_correlates(rng):
    findings = make_findings(rng, EQUAL)
    text = wording.describe_curvature(findings)
    assert "FRN, clipped (60)" in text and "BatchNorm, no clipping (10)" in text and "is 0.10 times" in text
    text = wording.describe_correlations(findings)
    assert "all 36 models, 1 of 2 measures" in text and "0 of 2 do" in text
    assert wording.tabulate_curvature(findings)[0] == [
        "BatchNorm, no clipping",
        "10",
        *["\u22120.5"],
        "0.1",
        *["\u22120.5"] * 3,
    ]
