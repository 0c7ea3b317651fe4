"""What the study found, as sentences and table rows that follow the data: every number comes from a result file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from stages.core.files import StageError, read_json
from stages.core.params import Params
from stages.measure.paired_tests import ALPHA, POWER, smallest_p
from stages.models.configurations import label_of, list_keys, name_of, split_key
from stages.models.norms import load_norm
from stages.reporting.phrases import count, join, p_value, signed, span
from stages.reporting.published import CLAIMED_BEST, CLAIMED_CLIP_EFFECT, OTHERS, SIX_ROWS, TRANSFER_RANGE
from stages.reporting.results import clip_effect, percent, test_accuracies

PLACES = {"vector": "a pooled vector", "spatial": "the feature map"}
CLOSE = 0.5  # points of accuracy that a practitioner would not choose a layer for


@dataclass(frozen=True)
class Findings:
    """The result files that the documents speak of; dicts are keyed by configuration."""

    norms: list[str]
    metrics: dict[str, dict]
    gradients: dict[str, dict]
    landscapes: dict[str, dict]
    curvature: dict[str, dict]
    correlations: dict  # of curvature measures with the generalization gap
    errors: dict
    contrasts: pd.DataFrame  # compare_over_seeds
    tests: pd.DataFrame  # compare_over_images
    clip: float
    placement: str
    block_bn_statistics: str

    @property
    def seeds(self) -> int:
        return next(iter(self.metrics.values()))["seeds"]

    @property
    def ranking(self) -> list[str]:
        """Configurations, the highest mean test accuracy first."""
        return sorted(self.metrics, key=lambda key: -self.metrics[key]["test_accuracy"])

    def accuracy(self, key: str) -> float:
        return 100 * self.metrics[key]["test_accuracy"]

    def of_family(self, family: str) -> pd.DataFrame:
        return self.contrasts[self.contrasts["family"] == family]


def load_findings(params: Params, root: Path = Path(), run: str = "") -> Findings:
    """Of the study, or of the run whose results lie in folders of that name; raises StageError if one is missing."""
    metrics, statistics = root / "metrics" / run, root / "plots" / run / "statistics"

    def read_all(folder: str) -> dict[str, dict]:
        return {key: read_json(metrics / f"{folder}/{key}.json") for key in list_keys(params.norms)}

    try:
        return Findings(
            norms=params.norms,
            metrics=read_all("train"),
            gradients=read_all("gradients"),
            landscapes=read_all("landscape"),
            curvature=read_all("curvature"),
            correlations=read_json(metrics / "curvature.json"),
            errors=read_json(metrics / "errors.json"),
            contrasts=pd.read_csv(statistics / "seeds.csv"),
            tests=pd.read_csv(statistics / "images.csv"),
            clip=params.clip,
            placement=params.train.placement,
            block_bn_statistics=params.train.block_bn_statistics,
        )
    except FileNotFoundError as error:
        raise StageError(f"{error.filename} does not exist; run `dvc repro`, which makes it first") from None


def is_significant(row: pd.Series) -> bool:
    return row["p_adjusted"] < ALPHA


def describe_ranking(findings: Findings) -> str:
    best, second = findings.ranking[:2]
    text = (
        f"{name_of(best)} has the highest mean test accuracy, {findings.accuracy(best):.2f}%, before {name_of(second)} "
        f"with {findings.accuracy(second):.2f}%"
    )
    if len(findings.ranking) > 2:
        last = findings.ranking[-1]
        text += f"; {name_of(last)} has the lowest, {findings.accuracy(last):.2f}%"
    return f"{text}."


def describe_power(findings: Findings) -> str:
    lowest = smallest_p(findings.seeds)
    if lowest > ALPHA:
        return (
            f"With {count(findings.seeds, 'paired seed')} the smallest two-sided p-value of a sign-flip test is "
            f"{lowest:.2g}: no difference can be significant over seeds, however large it is."
        )
    effects = findings.contrasts["smallest_effect"].dropna()
    return (
        f"With {findings.seeds} paired seeds, differences of {span(effects)} points, depending on the contrast's "
        f"spread, would be found with a probability of {POWER:.0%} before correction."
    )


def describe_significance(findings: Findings, family: str) -> str:
    """Which contrasts of a family are significant over seeds, and how many of McNemar's tests over images are."""
    if family == "norms" and len(findings.norms) == 1:
        return f"{label_of(findings.norms[0])} alone was studied: there is no contrast between norms."
    rows, tests = findings.of_family(family), findings.tests[findings.tests["family"] == family]
    kind = {"norms": "between norms", "clipping": "of clipping"}[family]
    found = rows[rows["p_adjusted"] < ALPHA]
    over_images = int((tests["p_adjusted"] < ALPHA).sum())
    if len(rows) == 1:
        verdict = f"the only contrast {kind} is {'not ' if found.empty else ''}significant"
    else:
        amount, verb = ("none", "is") if found.empty else (len(found), "are")
        verdict = f"{amount} of the {len(rows)} contrasts {kind} {verb} significant"
    text = f"Over seeds, {verdict} after Holm's correction"
    if not found.empty:
        names = [f"{row.contrast} ({signed(row.mean)} points, {p_value(row.p_adjusted)})" for row in found.itertuples()]
        text += f": {join(names)}"
    return (
        f"{text}. Over test images, taking each trained pair of models as it is, McNemar's test is significant in "
        f"{over_images} of {len(tests)} cases."
    )


def describe_clipping(findings: Findings, norm: str) -> str:
    """The effect of clipping on one norm, in points of test accuracy."""
    row = findings.of_family("clipping").set_index("first").loc[f"{norm}-clip"]
    effects = 100 * clip_effect(findings.metrics, norm)
    verdict = "significant" if is_significant(row) else "not significant"
    return (
        f"{label_of(norm)}: {signed(row['mean'])} points on average, {signed(effects.min())} to "
        f"{signed(effects.max())} over seeds ({verdict}, {p_value(row['p_adjusted'])})."
    )


def describe_clipped_steps(findings: Findings) -> str:
    keys = [f"{norm}-clip" for norm in findings.norms]
    shares = [100 * findings.metrics[key]["clip_fraction"] for key in keys]
    factors = [findings.metrics[key]["clip_coefficient"] for key in keys]
    return (
        f"At a threshold of {findings.clip:g}, clipping acted on {span(shares, 0)}% of the steps and scaled their "
        f"gradients by {span(factors)} on average."
    )


def worse_in_every_seed(findings: Findings, norm: str) -> bool:
    """Whether every seed of `norm`, in either mode, is below every seed of all other norms."""

    def accuracies(chosen: list[str]) -> np.ndarray:
        keys = [key for key in findings.metrics if split_key(key)[0] in chosen]
        return np.concatenate([test_accuracies(findings.metrics[key]) for key in keys])

    others = [other for other in findings.norms if other != norm]
    return bool(others) and max(accuracies([norm])) < min(accuracies(others))


def behind(findings: Findings) -> list[str]:
    """The norms that are below all others in every seed."""
    return [norm for norm in findings.norms if worse_in_every_seed(findings, norm)]


def recommend_norm(findings: Findings) -> str:
    plain = {norm: findings.accuracy(f"{norm}-noclip") for norm in findings.norms}
    if len(plain) == 1:
        return f"{label_of(findings.norms[0])} alone was studied: which norm to choose is left open."
    best = max(plain.values())
    close = [label_of(norm) for norm, value in plain.items() if best - value <= CLOSE]
    if len(close) == 1:
        text = f"Start with {close[0]}."
    else:
        text = f"{join(close)} are within {CLOSE:g} points of each other without clipping: choose by convenience."
    for norm in behind(findings):
        gap = f"{best - plain[norm]:.1f} points below the best on average"
        place = PLACES[findings.placement]
        text += f" {label_of(norm)} on {place} was below the other norms in every seed, {gap}, under this recipe."
    qualifications = [load_norm(norm).qualify_distance(findings.placement) for norm in behind(findings)]
    return " ".join(filter(None, [text, *qualifications]))


def recommend_clipping(findings: Findings) -> str:
    rows = findings.of_family("clipping")
    helped = [row.first for row in rows[rows["mean"] > 0].itertuples() if row.p_adjusted < ALPHA]
    hurt = [row.first for row in rows[rows["mean"] < 0].itertuples() if row.p_adjusted < ALPHA]
    if helped or hurt:
        texts = [f"clip with {label_of(split_key(key)[0])}" for key in helped]
        texts += [f"do not clip with {label_of(split_key(key)[0])}" for key in hurt]
        text = join(texts)
        return f"{text[0].upper()}{text[1:]}: there the difference is significant."
    largest = rows["mean"].abs().max()
    return (
        f"Do not expect accuracy from clipping under Adam: no mean changed by more than {largest:.2f} points, and no "
        "change is significant. It remains a guard against rare, huge gradients."
    )


def describe_block_statistics(block_bn_statistics: str) -> str:
    if block_bn_statistics == "frozen":
        return "whose BatchNorm keeps its statistics"
    return "whose BatchNorm takes each batch's statistics"


def describe_head(placement: str) -> str:
    if placement == "vector":
        return "global average pooling, a linear layer to 256 units, the norm, ReLU"
    return "a linear layer to 256 units at every position of the map, the norm, ReLU, global average pooling"


def explain_distances(findings: Findings) -> str:
    """What may be behind the distance of norms that are below the others in every seed, where their files say so."""
    return " ".join(filter(None, [load_norm(norm).explain_distance(findings.placement) for norm in behind(findings)]))


def describe_gradients(findings: Findings) -> str:
    norms = {key: findings.gradients[key]["grad_norm"] for key in findings.metrics}
    high, low = max(norms, key=norms.get), min(norms, key=norms.get)
    return (
        f"At the trained weights the gradient of a small batch is longest for {name_of(high)} ({norms[high]:.2f}) and "
        f"shortest for {name_of(low)} ({norms[low]:.2f})."
    )


def snr_without_signal(batches: int) -> float:
    """Median of |mean| / standard deviation over so many batches of an entry whose true mean is zero."""
    return float(stats.norm.ppf(0.75) / np.sqrt(batches))


def describe_landscapes(findings: Findings) -> str:
    flat = {key: 100 * findings.landscapes[key]["flat_share"] for key in findings.metrics}
    high, low = max(flat, key=flat.get), min(flat, key=flat.get)
    text = (
        f"Over the two random directions, {flat[high]:.0f}% of the grid around {name_of(high)} and {flat[low]:.0f}% "
        f"around {name_of(low)} stays within 0.1 nats of the trained loss."
    )
    if high == findings.ranking[-1]:
        text += " The flattest landscape is the least accurate configuration's: flatness alone predicts nothing here."
    return text


def describe_curvature(findings: Findings) -> str:
    tops = {key: findings.curvature[key]["lambda_max"] for key in findings.metrics}
    high, low = max(tops, key=tops.get), min(tops, key=tops.get)
    ratios = [findings.curvature[key]["ratio"] for key in findings.metrics]
    return (
        "Over the head's parameters, the largest eigenvalue of the validation loss's Hessian is highest for "
        f"{name_of(high)} ({tops[high]:.3g}) and lowest for {name_of(low)} ({tops[low]:.3g}). The lowest "
        f"eigenvalue is {span(ratios)} times the largest in size: near the weights the loss bends down too."
    )


def describe_correlations(findings: Findings) -> str:
    """How many measures of curvature go along with the generalization gap, over all models and within norms."""
    found = findings.correlations
    measures = sum(name.startswith("all_") for name in found) - 1
    return (
        f"Over all {found['models']} models, {found['all_significant']} of {measures} measures of curvature correlate "
        "with the generalization gap after Holm's correction; where each norm's mean is taken out, so that differences "
        f"between norms do not count, {found['within_significant']} of {measures} do."
    )


def tabulate_curvature(findings: Findings) -> list[list[str]]:
    """Rows configuration, largest and lowest eigenvalue, their ratio, trace, sharpness in the box and in the ball."""
    columns = ("lambda_max", "lambda_min", "ratio", "trace", "sharpness_box", "sharpness_ball")
    return [
        [name_of(key), *(f"{findings.curvature[key][name]:.3g}".replace("-", "\u2212") for name in columns)]
        for key in findings.metrics
    ]


def describe_errors(findings: Findings) -> str:
    errors = findings.errors
    return (
        f"{100 * errors['always_right']:.1f}% of the test images are right in every model and "
        f"{100 * errors['always_wrong']:.1f}% wrong in every one; {100 * errors['contested']:.1f}% are right in all "
        "seeds of one configuration and wrong in all of another."
    )


def compare_with_claims(findings: Findings) -> list[list[str]]:
    """Rows claim, what was found here, verdict."""
    rows = []
    if CLAIMED_BEST in findings.metrics:
        best = findings.ranking[0]
        verdict = "agrees" if best == CLAIMED_BEST else "not seen"
        found = f"{name_of(best)} is best; {name_of(CLAIMED_BEST)} is number {findings.ranking.index(CLAIMED_BEST) + 1}"
        rows.append([f"{name_of(CLAIMED_BEST)} is best", found, verdict])
    norm, claimed = CLAIMED_CLIP_EFFECT
    if norm in findings.norms:
        effects = 100 * clip_effect(findings.metrics, norm)
        found = f"{signed(effects.mean())} ({signed(effects.min())} to {signed(effects.max())})"
        verdict = "agrees" if effects.min() <= claimed <= effects.max() else "not seen"
        rows.append([f"Clipping adds {claimed} points to {label_of(norm)}", found, verdict])
    return rows


def tabulate_claims(findings: Findings) -> list[list[str]]:
    """Rows configuration, claimed, the log of the same run, here."""
    rows = []
    for key, (claimed, logged) in SIX_ROWS.items():
        if key in findings.metrics:
            here = percent(findings.metrics[key], "test_accuracy")
            rows.append([name_of(key), f"{claimed:.2f}", f"{logged:.2f}", here])
    return rows


def tabulate_others(findings: Findings) -> list[list[str]]:
    """Rows study, claim, what its code or log shows, here."""
    low, high = TRANSFER_RANGE
    worst, best = (findings.accuracy(findings.ranking[end]) for end in (-1, 0))
    verdict = "within that range" if low <= worst and best <= high else f"not all within {low} to {high}%"
    transfer, *_, whole = OTHERS
    here = {
        transfer: f"{worst:.1f} to {best:.1f}% with transfer: {verdict}.",
        whole: f"{best:.1f}% at best, with the end of the backbone and the head alone trained: not the same setting.",
    }
    return [[study, *texts, here.get(study, "Not part of this report.")] for study, texts in OTHERS.items()]


def tabulate_contrasts(findings: Findings) -> list[list[str]]:
    """Rows contrast, points, interval over seeds, over images, adjusted p, smallest effect."""
    return [
        [
            row.contrast.replace(" - ", " \u2212 "),
            signed(row.mean),
            f"{signed(row.low)} to {signed(row.high)}",
            f"{signed(row.image_low)} to {signed(row.image_high)}",
            f"{row.p_adjusted:.2g}",
            "none" if np.isnan(row.smallest_effect) else f"{row.smallest_effect:.2f}",
        ]
        for row in findings.contrasts.astype({"smallest_effect": float}).itertuples()
    ]


def tabulate_gradients(findings: Findings) -> list[list[str]]:
    """Rows configuration, gradient norm, relative to the weights, cosine, noise scale, median signal to noise."""
    rows = []
    for key in findings.metrics:
        own = findings.gradients[key]
        scale = "not resolved" if own["noise_scale"] is None else f"{own['noise_scale']:,.0f}"
        rows.append(
            [
                name_of(key),
                f"{own['grad_norm']:.2f}",
                f"{own['grad_to_weight']:.3f}",
                f"{own['cosine']:.3f}",
                scale,
                f"{own['snr_median']:.3f}",
            ]
        )
    return rows
