"""What the pages say beside the reports' own sentences, as sentences that follow the data."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from stages.measure.paired_tests import ALPHA, smallest_p
from stages.models.configurations import MODES, label_of, split_key
from stages.reporting.phrases import count, join, signed, span
from stages.reporting.results import clip_effect, test_accuracies
from stages.reporting.wording import Findings, behind, is_significant
from stages.variants.variants_wording import mean_accuracies

WHERE = {"noclip": "without clipping", "clip": "with clipping"}
SUITS_SMALL_BATCHES = ("layernorm", "frn")  # what is claimed of these norms


def answer_norms(findings: Findings) -> str:
    """Which norms end below which, as far as the tests over seeds tell, in everyday words."""
    pairs = [frozenset(pair) for pair in combinations(findings.norms, 2)]
    apart, below = set(), {}
    for row in findings.of_family("norms").itertuples():
        (first, mode), (second, _) = split_key(row.first), split_key(row.second)
        if is_significant(row._asdict()):
            better, worse = (first, second) if row.mean > 0 else (second, first)
            apart.add(frozenset((first, second)))
            below.setdefault((worse, better), {})[mode] = abs(row.mean)
    groups: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (worse, better), sizes in below.items():
        where = "with clipping and without" if len(sizes) == len(MODES) else WHERE[next(iter(sizes))]
        groups.setdefault((worse, where), {})[label_of(better)] = list(sizes.values())
    texts = [
        f"Heads with {label_of(worse)} end below those with {join(list(found))}, by {span(sum(found.values(), []), 1)} "
        f"points of test accuracy, {where}."
        for (worse, where), found in groups.items()
    ]
    alike = [join([label_of(norm) for norm in findings.norms if norm in pair]) for pair in pairs if pair not in apart]
    texts += [f"Between {pair} no difference is found." for pair in alike]
    return " ".join(texts)


def answer_clipping(findings: Findings) -> str:
    """For which norms clipping changes test accuracy, as far as the tests over seeds tell, in everyday words."""
    found = [row for row in findings.of_family("clipping").itertuples() if is_significant(row._asdict())]
    if not found:
        return "It makes no difference that could be found, for any norm."
    parts = [f"{signed(row.mean)} points for {label_of(split_key(row.first)[0])}" for row in found]
    return f"It changes test accuracy by {join(parts)}; for other norms no difference is found."


def describe_ranks(findings: Findings) -> str:
    """Which norms are below all others in every model; empty where none is."""
    return " ".join(
        f"Every head with {label_of(norm)}, of whichever seed and mode, is below every head with another norm."
        for norm in behind(findings)
    )


def describe_clip_effects(findings: Findings) -> str:
    """The largest effect of clipping on a mean and on a single seed, and in which direction effects go."""
    effects = {norm: 100 * clip_effect(findings.metrics, norm) for norm in findings.norms}
    every = np.concatenate(list(effects.values()))
    mean = max(abs(own.mean()) for own in effects.values())
    if every.min() < 0 < every.max():
        direction = "some up and some down"
    else:
        direction = "none of them down" if every.min() >= 0 else "none of them up"
    return (
        f"Clipping changes no norm's mean test accuracy by more than {mean:.2f} points and no single seed's by more "
        f"than {np.abs(every).max():.2f}, {direction}."
    )


def describe_reach(findings: Findings) -> str:
    """The smallest p-values that so many seeds allow, before and after Holm's correction over the norms' contrasts."""
    lowest, rows = smallest_p(findings.seeds), findings.of_family("norms")
    corrected = min(1.0, len(rows) * lowest)
    text = (
        f"The smallest p-value that {count(findings.seeds, 'paired seed')} can reach is {lowest:.2g}, and "
        f"{corrected:.2g} after Holm's correction over the {count(len(rows), 'contrast')} between norms"
    )
    found = rows[rows["p_adjusted"] < ALPHA]
    if not found.empty and np.allclose(found["p_adjusted"], corrected):
        return f"{text}: what is significant is as significant as it could be."
    return f"{text}."


def describe_sittings(findings: Findings, later: int) -> str:
    """For a run whose last `later` seeds were trained after the others."""
    first, contrasts = findings.seeds - later, len(findings.of_family("norms"))
    best = min(1.0, contrasts * smallest_p(first))
    text = (
        f"It was trained in two sittings, {count(first, 'seed')} first. With those the smallest p-value is {best:.2g}"
    )
    if best > ALPHA:
        return f"{text}: nothing could have been found, so that adding seeds does not raise the rate of false findings."
    return (
        f"{text}: differences could have been found before seeds were added, which raises the rate of false findings."
    )


def compare_runs(own: dict[str, dict], other: dict[str, dict]) -> str:
    """How far apart two runs' models of the same configurations and seeds are: both hold metrics by configuration."""
    shared = min(len(test_accuracies(metrics)) for run in (own, other) for metrics in run.values())
    distances = np.array([
        100 * (test_accuracies(own[key])[:shared] - test_accuracies(other[key])[:shared]) for key in own if key in other
    ])  # fmt: skip
    return (
        f"the test accuracies of the first {count(shared, 'seed')} differ by at most {np.abs(distances).max():.2f} "
        f"points for a single model, and {np.abs(distances.mean(1)).max():.2f} for a mean"
    )


def describe_gaps(findings: Findings) -> str:
    gaps = {label_of(norm): mean_of(findings.metrics, norm, "generalization_gap") for norm in findings.norms}
    most, least = max(gaps, key=gaps.get), min(gaps, key=gaps.get)
    return (
        f"The gap is largest for {most} ({100 * gaps[most]:.1f} points, mean of both modes) and smallest for {least} "
        f"({100 * gaps[least]:.1f})."
    )


def mean_of(metrics: dict[str, dict], norm: str, name: str) -> float:
    """Over the modes of a norm."""
    return float(np.mean([metrics[f"{norm}-{mode}"][name] for mode in MODES]))


def describe_last_epoch(curves: dict[str, pd.DataFrame]) -> str:
    """By how much the training loss still falls at the end, per norm; `curves` are keyed by configuration."""
    falls: dict[str, list[float]] = {}
    for key, table in curves.items():
        *_, before, last = table.groupby("epoch")["train_loss"].mean()
        falls.setdefault(label_of(split_key(key)[0]), []).append(100 * (1 - last / before))
    parts = [f"{signed(-float(np.mean(own)))}% for {label}" for label, own in falls.items()]
    return f"In the last epoch the training loss still changes by {join(parts)}."


def describe_saddles(findings: Findings) -> str:
    """The lowest eigenvalue beside the largest, per norm: near a minimum it would be 0 or more."""
    by_norm = {
        label_of(norm): [findings.curvature[f"{norm}-{mode}"]["ratio"] for mode in MODES] for norm in findings.norms
    }
    parts = [f"\u2212{span(ratios)} for {label}" for label, ratios in by_norm.items()]
    return f"By norm, the lowest eigenvalue is, in units of the largest one, {join(parts)}."


def judge_small_batches(runs: pd.DataFrame) -> str:
    """What is claimed of some norms, that they suit small batches, beside their accuracy from large to small ones."""
    means = mean_accuracies(runs)
    small, large = means.columns[0], means.columns[-1]
    change = means[small] - means[large]
    parts = [f"{signed(value)} points for {label_of(norm)}" for norm, value in change.items()]
    text = [f"From batches of {large} to batches of {small} the mean validation accuracy changes by {join(parts)}."]
    for verdict, fits in {"holds here for": change >= 0, "does not hold here for": change < 0}.items():
        norms = [label_of(norm) for norm in SUITS_SMALL_BATCHES if norm in change and fits[norm]]
        text += [f"The claim that it suits small batches {verdict} {join(norms)}."] if norms else []
    return " ".join(text)


def describe_jumps(curves: dict[int, pd.DataFrame]) -> str:
    """How far validation accuracy moves from epoch to epoch, by the first block that trains, least trained first."""
    jumps = [100 * curve.groupby("seed")["val_accuracy"].diff().abs().mean() for curve in curves.values()]
    parts = [f"{jump:.2f} from features.{block} on" for jump, block in zip(jumps, curves, strict=True)]
    text = f"From one epoch to the next, validation accuracy moves by so many points on average: {join(parts)}."
    if len(jumps) > 1 and jumps == sorted(jumps):
        text += " The more blocks train, the more it moves."
    return text


def describe_leads(transfer: dict[float, float], scratch: dict[float, float]) -> str:
    """Whether transfer's lead in accuracy shrinks as images are added; both are keyed by share of the images."""
    leads = [transfer[share] - scratch[share] for share in sorted(transfer)]
    if leads == sorted(leads, reverse=True):
        return "The fewer the images, the larger the lead: that transfer helps most where images are few holds here."
    return (
        "The lead does not shrink steadily with more images: that transfer helps most where they are few is not seen."
    )


def compare_gaps(transfer: dict[float, float], scratch: dict[float, float]) -> str:
    """Whether transfer has the smaller generalization gap; both are keyed by share of the images."""
    smaller = [100 * (scratch[share] - transfer[share]) for share in sorted(transfer)]
    size = f"by at most {max(map(abs, smaller)):.1f} points"
    if min(smaller) > 0:
        return f"The frozen MobileNetV2 has the smaller gap at every share, {size}: it generalizes better here."
    if max(smaller) < 0:
        return f"The CNN from scratch has the smaller gap at every share, {size}."
    return f"The gaps differ {size} and in both directions: neither generalizes better in the sense of a smaller gap."


def describe_order(accuracies: dict[str, float]) -> str:
    """Validation accuracies in [0, 1] by label, the highest first."""
    order = sorted(accuracies, key=lambda label: -accuracies[label])
    return f"Here the order is {join([f'{label} ({100 * accuracies[label]:.1f}%)' for label in order])}."


def describe_chosen_lr(summary: dict, sizes: Sequence[int], lr: float) -> str:
    """In which batches the short runs found the peak learning rate that the full runs use."""
    agreeing = [str(size) for size in sorted(sizes) if summary[f"common_lr_{size}"] == lr]
    if not agreeing:
        return f"The full runs use {lr:g}, which is that of none of them."
    return f"The full runs use {lr:g}, which is that in batches of {join(agreeing)}."
