"""What the side studies found, as sentences that follow the data: every number comes from a result file."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.reporting.image_figures import find_frontier
from stages.reporting.image_labels import name_variant
from stages.reporting.phrases import join, signed

GOAL = 70  # per cent of test accuracy, for the CNN of fewer than 50,000 parameters


def describe_shares(transfer: dict[float, float], scratch: dict[float, float]) -> str:
    """Both are test accuracies in [0, 1] by share of the training images in per cent."""
    leads = {share: 100 * (transfer[share] - scratch[share]) for share in sorted(transfer)}
    ahead = [f"{share:g}%" for share, lead in leads.items() if lead > 0]
    largest, smallest = max(leads, key=leads.get), min(leads, key=leads.get)
    if len(ahead) == len(leads):
        where = "at every share of the training images"
    elif ahead:
        where = f"with {join(ahead)} of the training images, and not with the others"
    else:
        where = "at no share of the training images"
    return (
        f"The frozen MobileNetV2 is ahead of the CNN from scratch {where}. "
        f"Its lead is {leads[largest]:.1f} points with {largest:g}% of them, and {leads[smallest]:.1f} with "
        f"{smallest:g}%."
    )


def describe_speed(comparison: dict, levels: Sequence[int]) -> str:
    """From `epochs_to_<level>pct_<way>`, null where a way never gets there."""

    def reach(way: str) -> str:
        epochs = [comparison[f"epochs_to_{level}pct_{way}"] for level in levels]
        return join(["never" if value is None else f"{value:.1f}" for value in epochs])

    return (
        f"The first epochs with a validation accuracy of {join([f'{level}%' for level in levels])} are "
        f"{reach('transfer')} for the frozen MobileNetV2 and {reach('scratch')} for the CNN (means over seeds)."
    )


def describe_unfreezing(summary: dict, blocks: list[int]) -> str:
    """From `test_accuracy_<block>` and `multiply_adds_<block>`; the last of the sorted blocks trains least."""
    accuracy, cost = ({b: summary[f"{what}_{b}"] for b in blocks} for what in ("test_accuracy", "multiply_adds"))
    least, best = max(blocks), max(blocks, key=accuracy.get)
    if best == least:
        return (
            f"Training features.{least} and the head alone gives the highest mean test accuracy, "
            f"{100 * accuracy[least]:.2f}%: nothing is gained by training more."
        )
    return (
        f"Training from features.{best} on gives the highest mean test accuracy, {100 * accuracy[best]:.2f}%, "
        f"{100 * (accuracy[best] - accuracy[least]):.2f} points above features.{least} alone, "
        f"for {cost[best] / cost[least]:.1f} times the multiply-adds of a step."
    )


def describe_layers(found: dict) -> str:
    """From `cka_features.<k>` and `like_neighbors_<when>`."""
    similarity = {name.removeprefix("cka_"): value for name, value in found.items() if name.startswith("cka_")}
    lowest = min(similarity, key=similarity.get)
    before, after = (100 * found[f"like_neighbors_{when}"] for when in ("before", "after"))
    return (
        f"Linear CKA between a layer's outputs before and after is lowest for {lowest}, {similarity[lowest]:.3f}. "
        f"Of an image's ten nearest neighbours in the pooled output {before:.1f}% are of its class before, "
        f"{after:.1f}% after."
    )


def begin(sentence: str) -> str:
    """The sentence with a capital letter, whatever name it begins with."""
    return sentence[0].upper() + sentence[1:]


def describe_goal(accuracies: dict[str, float]) -> str:
    """Test accuracies in [0, 1] by norm, of the CNN of fewer than 50,000 parameters."""
    reached = [name_variant(norm) for norm, value in accuracies.items() if 100 * value >= GOAL]
    best = max(accuracies, key=accuracies.get)
    which = {len(accuracies): "Every norm reaches", 0: "No norm reaches"}.get(len(reached))
    which = which or f"{join(reached)} {'reaches' if len(reached) == 1 else 'reach'}"
    return f"{which} {GOAL}% of test accuracy; {name_variant(best)} has the most, {100 * accuracies[best]:.2f}%."


def describe_batch_sizes(summary: dict, norms: list[str], sizes: list[int]) -> str:
    """From the sweep's `val_accuracy_<norm>_<batch size>`, each in [0, 1] and at its best learning rate."""
    small, large = min(sizes), max(sizes)
    if small == large:
        return f"The sweep has one batch size, {small}."
    ends = {norm: [100 * summary[f"val_accuracy_{norm}_{size}"] for size in (small, large)] for norm in norms}
    changes = [f"from {first:.1f} to {last:.1f}% for {name_variant(norm)}" for norm, (first, last) in ends.items()]
    return (
        f"From batches of {small} to batches of {large}, each at the best of the learning rates tried, the validation "
        f"accuracy of short runs goes {join(changes)}."
    )


def describe_common_lrs(summary: dict, sizes: list[int]) -> str:
    """From the sweep's `common_lr_<batch size>`: the peak learning rate at which the worst norm is best."""
    lrs = {size: summary[f"common_lr_{size}"] for size in sorted(sizes)}
    used = {lr: [str(size) for size in lrs if lrs[size] == lr] for lr in sorted(set(lrs.values()))}
    rates = [f"{lr:g} in batches of {join(own)}" for lr, own in used.items()]
    return f"The peak learning rate that serves the worst norm best in short runs is {join(rates)}."


def tabulate_contrasts(contrasts: pd.DataFrame) -> list[list[str]]:
    """Of compare_with_first: rows variant, difference, 95% interval over test images, seeds that show a difference."""
    return [
        [
            name_variant(row.variant),
            signed(row.difference),
            f"{signed(row.low)} to {signed(row.high)}",
            f"{row.seeds_significant} of {row.seeds}",
        ]
        for row in contrasts.itertuples()
    ]


def describe_contrasts(contrasts: pd.DataFrame, first: str) -> str:
    """Of compare_with_first: which variants differ from the first one in every seed, in some and in none."""
    seeds = contrasts["seeds_significant"]
    groups = {"every seed": seeds == contrasts["seeds"], "some seeds": seeds.between(1, contrasts["seeds"] - 1)}
    groups["no seed"] = seeds == 0
    parts = [
        f"in {where} for {join([name_variant(name) for name in contrasts['variant'][chosen]])}"
        for where, chosen in groups.items()
        if chosen.any()
    ]
    test = "McNemar's test, after Holm's correction, finds a difference"
    return f"Against {name_variant(first)}, {test} {'; '.join(parts)}."


def describe_frontier(metrics: dict[str, dict]) -> str:
    """Which variants no other beats in mean test accuracy at the same multiply-adds or fewer."""
    names = [name_variant(name) for name in metrics]
    costs, accuracies = (np.array([own[w] for own in metrics.values()]) for w in ("multiply_adds", "test_accuracy"))
    on_it = [names[k] for k in find_frontier(costs, accuracies)]
    if len(on_it) == 1:
        return begin(f"{on_it[0]} is the cheapest in multiply-adds, and no other is more accurate.")
    return f"On the frontier of test accuracy against multiply-adds are {join(on_it)}."
