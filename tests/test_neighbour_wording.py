import pandas as pd

from stages.neighbours import neighbour_wording as wording


def test_shares_where_transfer_leads_everywhere_somewhere_and_nowhere():
    transfer = {1: 0.6, 10: 0.7, 100: 0.8}
    everywhere = wording.describe_shares(transfer, {1: 0.3, 10: 0.5, 100: 0.75})
    assert "at every share" in everywhere and "30.0 points with 1% of them, and 5.0 with 100%" in everywhere
    somewhere = wording.describe_shares(transfer, {1: 0.3, 10: 0.5, 100: 0.85})
    assert "with 1% and 10% of the training images, and not with the others" in somewhere
    assert "and -5.0 with 100%" in somewhere
    assert "at no share" in wording.describe_shares(transfer, {1: 0.7, 10: 0.7, 100: 0.9})


def test_speed_says_never_where_a_level_is_not_reached():
    found = {
        "epochs_to_60pct_transfer": 1.0,
        "epochs_to_80pct_transfer": 2.5,
        "epochs_to_60pct_scratch": 4.0,
        "epochs_to_80pct_scratch": None,
    }
    sentence = wording.describe_speed(found, [60, 80])
    assert "of 60% and 80% are 1.0 and 2.5 for the frozen MobileNetV2 and 4.0 and never for the CNN" in sentence


def test_unfreezing_that_pays_and_that_does_not():
    found = {
        "test_accuracy_18": 0.8,
        "test_accuracy_14": 0.85,
        "multiply_adds_18": 10,
        "multiply_adds_14": 45,
    }
    sentence = wording.describe_unfreezing(found, [18, 14])
    assert (
        "from features.14 on" in sentence and "85.00%, 5.00 points above features.18 alone, for 4.5 times" in sentence
    )
    assert "nothing is gained" in wording.describe_unfreezing(found | {"test_accuracy_14": 0.7}, [18, 14])


def test_layers_name_the_least_similar_one():
    found = {
        "images": 9,
        "cka_features.17": 0.99,
        "cka_features.18": 0.9514,
        "like_neighbors_before": 0.5,
        "like_neighbors_after": 0.625,
    }
    sentence = wording.describe_layers(found)
    assert "lowest for features.18, 0.951" in sentence and "50.0% are of its class before, 62.5% after" in sentence


def test_the_goal_is_reached_by_all_by_some_or_by_none():
    assert wording.describe_goal({"a": 0.7, "b": 0.8}) == (
        "Every norm reaches 70% of test accuracy; b has the most, 80.00%."
    )
    assert wording.describe_goal({"a": 0.6, "b": 0.8}).startswith("b reaches 70%")
    assert wording.describe_goal({"a": 0.9, "b": 0.8, "c": 0.1}).startswith("a and b reach 70%")
    assert wording.describe_goal({"a": 0.6, "b": 0.65}).startswith("No norm reaches 70%")


def test_batch_sizes_are_compared_from_the_smallest_to_the_largest():
    found = {"val_accuracy_a_8": 0.5, "val_accuracy_a_16": 0.9, "val_accuracy_a_64": 0.3}
    found |= {"val_accuracy_batchnorm_8": 0.25, "val_accuracy_batchnorm_64": 0.375}
    sentence = wording.describe_batch_sizes(found, ["a", "batchnorm"], [64, 8, 16])
    assert sentence.startswith("From batches of 8 to batches of 64, ")
    assert sentence.endswith(" goes from 50.0 to 30.0% for a and from 25.0 to 37.5% for BatchNorm.")
    assert wording.describe_batch_sizes(found, ["a"], [8]) == "The sweep has one batch size, 8."


def test_batch_sizes_are_named_by_the_learning_rate_that_serves_all_norms():
    found = {"common_lr_8": 0.03, "common_lr_16": 0.001, "common_lr_64": 0.03}
    assert wording.describe_common_lrs(found, [64, 8, 16]).endswith(
        " is 0.001 in batches of 16 and 0.03 in batches of 8 and 64."
    )


CONTRASTS = pd.DataFrame(
    [
        ("silu", 1.234, 0, 2, 2, 2),
        ("expansion_2", -0.5, -1, 0, 0, 2),
        ("width_double", 0.1, 0, 1, 1, 2),
        ("groupnorm", 3.0, 2, 4, 2, 2),
    ],
    columns=["variant", "difference", "low", "high", "seeds_significant", "seeds"],
)


def test_contrasts_say_in_how_many_seeds_a_difference_is_found():
    assert wording.describe_contrasts(CONTRASTS, "plain") == (
        "Against plain, McNemar's test, after Holm's correction, finds a difference in every seed for SiLU and "
        "GroupNorm; in some seeds for width 2; in no seed for expansion 2."
    )
    assert "some" not in wording.describe_contrasts(CONTRASTS[:2], "plain")
    assert wording.describe_contrasts(CONTRASTS[1:2], "plain").endswith(
        "finds a difference in no seed for expansion 2."
    )


def test_rows_of_contrasts_give_signs_intervals_and_seeds():
    rows = wording.tabulate_contrasts(CONTRASTS)
    assert rows[0] == ["SiLU", "+1.23", "+0.00 to +2.00", "2 of 2"]
    assert rows[1] == ["expansion 2", "\u22120.50", "\u22121.00 to +0.00", "0 of 2"]


def test_a_frontier_leaves_out_what_another_beats():
    metrics = {
        "cheap": {"multiply_adds": 1, "test_accuracy": 0.5},
        "beaten": {"multiply_adds": 2, "test_accuracy": 0.4},
        "dear": {"multiply_adds": 3, "test_accuracy": 0.6},
    }
    assert wording.describe_frontier(metrics).endswith("are cheap and dear.")
    metrics["dear"]["test_accuracy"] = 0.1
    assert wording.describe_frontier(metrics).startswith("Cheap is the cheapest")
