"""The front page's numbers are those of the committed results, whatever a user has run since."""

import json
import re
from itertools import product

import numpy as np
import pandas as pd
import pytest

from stages.baseline.share_figures import LEVELS
from stages.core.params import load_params
from stages.measure.paired_tests import ALPHA, smallest_p
from stages.models.configurations import list_keys
from stages.models.norms import frn
from stages.neighbours.neighbour_wording import (
    describe_batch_sizes,
    describe_common_lrs,
    describe_contrasts,
    describe_frontier,
    describe_goal,
    describe_layers,
    describe_shares,
    describe_speed,
    describe_unfreezing,
)
from stages.reporting.image_labels import describe_recipe, name_variant
from stages.reporting.results import percent, tabulate
from stages.reporting.wording import (
    describe_correlations,
    describe_curvature,
    describe_errors,
    describe_power,
    describe_significance,
    load_findings,
    tabulate_contrasts,
    worse_in_every_seed,
)
from stages.variants.variants_wording import describe_variants
from tests.conftest import STUDIED, committed_files

ROOT = committed_files()
README = (ROOT / "README.md").read_text()
KEYS = list_keys(STUDIED)


def read(path: str) -> dict:
    return json.loads((ROOT / path).read_text())


def assert_table(header: list[str], rows: list[list[str]]) -> None:
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    assert "\n".join(lines) in README, "the table should read:\n" + "\n".join(lines)


def test_the_results_table_is_the_committed_metrics():
    keys = KEYS
    assert_table(*tabulate({key: read(f"metrics/train/{key}.json") for key in keys}))


def test_the_price_of_few_views_is_the_committed_comparison():
    found = read("metrics/cache_study/views.json")
    study = load_params(ROOT / "params.yaml").cache_study
    most = max(study.views)
    rows = [
        [str(views), percent(found, f"val_accuracy_views{views}"), f"{100 * found[f'below_most_views{views}']:.2f}"]
        for views in study.views
    ]
    assert_table(["views", "best validation accuracy (%)", f"below {most} views (points)"], rows)


def test_transfer_against_scratch_is_the_committed_comparison():
    study, ways = load_params(ROOT / "params.yaml").baseline, ("transfer", "train")
    found = {way: {share: read(f"metrics/baseline/{way}/{share:g}.json") for share in study.percents} for way in ways}
    names = [
        "frozen MobileNetV2, test (%)",
        "CNN from scratch, test (%)",
        "frozen, gap (points)",
        "scratch, gap (points)",
    ]
    rows = []
    for share in study.percents:
        gaps = [f"{100 * found[way][share]['generalization_gap']:.2f}" for way in ways]
        rows.append([f"{400 * share:,}", *(percent(found[way][share], "test_accuracy") for way in ways), *gaps])
    assert_table(["training images", *names], rows)
    accuracies = [{share: own["test_accuracy"] for share, own in found[way].items()} for way in ways]
    text = " ".join(README.split())
    assert describe_shares(*accuracies) in text
    assert describe_speed(read("metrics/baseline/comparison.json"), LEVELS) in text
    leads = [accuracies[0][share] - accuracies[1][share] for share in study.percents]
    assert leads == sorted(leads, reverse=True)  # "helps most where images are few"
    gaps = [[own["generalization_gap"] for own in found[way].values()] for way in ways]
    smaller = [scratch - frozen for frozen, scratch in zip(*gaps, strict=True)]
    assert min(smaller) < 0 < max(smaller) and f"by at most {100 * max(map(abs, smaller)):.1f} points" in text
    seconds = read("metrics/timing/baseline/transfer.json")["seconds_per_epoch_100"]
    plain = read("metrics/timing/baseline/100.json")["seconds_per_epoch"]
    assert f"takes {seconds:.2f} seconds on the stored features, and {plain:.1f} on the images" in text


def test_unfreezing_is_the_committed_comparison():
    blocks = sorted(load_params(ROOT / "params.yaml").unfreezing.trainable_from, reverse=True)
    rows = []
    for block in blocks:
        own = read(f"metrics/unfreezing/train/{block}.json")
        seconds = read(f"metrics/timing/unfreezing/train-{block}.json")["seconds_per_epoch"]
        costs = [f"{own['parameters']:,}", f"{own['multiply_adds'] / 1e6:.1f}", f"{own['stored_bytes'] / 1000:.1f}"]
        rows.append([f"`features.{block}`", *costs, f"{seconds:.1f}", percent(own, "test_accuracy")])
    header = [
        "trains from",
        "parameters",
        "million multiply-adds",
        "kB per stored view",
        "seconds per epoch",
        "test (%)",
    ]
    assert_table(header, rows)
    text = " ".join(README.split())
    assert describe_unfreezing(read("metrics/unfreezing/summary.json"), blocks) in text
    assert describe_layers(read("metrics/unfreezing/representations.json")) in text
    curves = [pd.read_csv(ROOT / f"plots/unfreezing/curves/{block}.csv") for block in blocks]
    jumps = [curve.groupby("seed")["val_accuracy"].diff().abs().mean() for curve in curves]
    assert jumps == sorted(jumps), jumps  # "the more blocks train, the more validation accuracy jumps"


def test_the_small_cnns_norms_are_the_committed_metrics():
    params, rows, metrics = load_params(ROOT / "params.yaml"), [], {}
    for norm in params.small_cnn.variants:
        metrics[norm] = found = read(f"metrics/small_cnn/train/{norm}.json")
        latency = read(f"metrics/timing/small_cnn/{norm}.json")["latency_ms"]
        accuracies = [percent(found, f"{part}_accuracy") for part in ("test", "val")]
        gap = f"{100 * found['generalization_gap']:.2f}"
        rows.append([name_variant(norm), f"{found['parameters']:,}", *accuracies, gap, f"{latency:.1f}"])
    assert_table(["norm", "parameters", "test (%)", "validation (%)", "gap (points)", "latency (ms)"], rows)
    text, sweep = " ".join(README.split()), read("metrics/small_cnn_sweep/summary.json")
    sizes = params.small_cnn_sweep.batch_sizes
    first, last = (metrics[norm]["val_accuracy"] for norm in ("batchnorm", "layernorm"))
    for sentence in (
        describe_recipe(params.small_cnn),
        describe_goal({norm: own["test_accuracy"] for norm, own in metrics.items()}),
        describe_contrasts(pd.read_csv(ROOT / "plots/small_cnn/contrasts.csv"), first=next(iter(metrics))),
        describe_batch_sizes(sweep, list(metrics), sizes),
        describe_common_lrs(sweep, sizes),
        f"here it is {100 * (first - last):.1f} points of validation accuracy below batch normalization",
    ):
        assert sentence in text, sentence


def test_mobilenetv2s_variants_are_the_committed_metrics():
    study, rows, metrics = load_params(ROOT / "params.yaml").mobilenetv2, [], {}
    for variant in study.variants:
        metrics[variant] = found = read(f"metrics/mobilenetv2/train/{variant}.json")
        latency = read(f"metrics/timing/mobilenetv2/{variant}.json")["latency_ms"]
        costs = [f"{found['parameters']:,}", f"{found['multiply_adds'] / 1e6:.1f}", f"{latency:.1f}"]
        rows.append([name_variant(variant), *costs, percent(found, "test_accuracy")])
    assert_table(["variant", "parameters", "million multiply-adds", "latency (ms)", "test (%)"], rows)
    text, contrasts = " ".join(README.split()), pd.read_csv(ROOT / "plots/mobilenetv2/contrasts.csv")
    for sentence in (
        describe_recipe(study),
        describe_frontier(metrics),
        describe_contrasts(contrasts, first=next(iter(metrics))),
    ):
        assert sentence in text, sentence


@pytest.mark.parametrize("study", ["variants", "unfreezing", "baseline", "small_cnn", "small_cnn_sweep", "mobilenetv2"])
def test_a_side_studys_duration_is_the_committed_one(study):
    files = list((ROOT / "metrics/timing" / study).glob("*.json"))
    minutes = f"{sum(read(file)['seconds'] for file in files) / 60:.0f}" if files else "not run yet"
    assert f"| `dvc repro stages/{study}/dvc.yaml` | {minutes} |" in README, minutes


def test_the_small_cnns_learning_rate_is_the_one_that_the_first_short_runs_found():
    lr = load_params(ROOT / "params.yaml").small_cnn.lr
    assert f"{lr:g} was chosen from those in batches of 64, which ran first." in " ".join(README.split())
    assert read("metrics/small_cnn_sweep/summary.json")["common_lr_64"] == lr


def test_the_price_of_half_precision_is_the_committed_comparison():
    found = read("metrics/cache_study/precision.json")
    flipped, difference = (f"{100 * found[name]:.1f}" for name in ("flipped_max", "accuracy_difference_max"))
    text = " ".join(README.split())
    assert f"at most {flipped}% of a model's {found['images']:,} validation predictions" in text
    assert f"by at most {difference} points" in text


def test_the_durations_are_the_committed_ones():
    keys = KEYS
    files = {
        "prepare": ["prepare"],
        "backbone": ["backbone"],
        "features": ["features"],
        f"train, {len(keys)} configurations": keys,
        f"landscape, {len(keys)} configurations": [f"landscape-{key}" for key in keys],
        f"gradients, {len(keys)} configurations": [f"gradients-{key}" for key in keys],
        f"curvature, {len(keys)} configurations": [f"curvature-{key}" for key in keys],
        "statistics, errors and curvature_summary": ["statistics", "errors", "curvature_summary"],
        "report, document and notebook": ["report", "document", "notebook"],
    }
    seconds = {
        part: sum(read(f"metrics/timing/{name}.json")["seconds"] for name in names) for part, names in files.items()
    }
    seconds["all"] = sum(seconds.values())
    assert_table(["stage", "minutes"], [[part, f"{value / 60:.1f}"] for part, value in seconds.items()])
    first, *others = (read(f"metrics/timing/{key}.json")["seconds"] for key in keys)
    least, most = (100 * (1 - bound(others) / first) for bound in (max, min))
    assert f"the other configurations' training took {least:.0f} to {most:.0f}% less time" in " ".join(README.split())


def test_the_figures_from_other_machines_are_the_committed_ones():
    text, params = " ".join(README.split()), load_params(ROOT / "params.yaml")
    h100, amx = "metrics/other_machines/h100", "metrics/other_machines/amx"
    seconds = [read(f"{h100}/timing/{key}.json")["seconds"] / 60 for key in KEYS]
    alone = read(f"{h100}/epoch_alone.json")["seconds"]
    assert f"the features took {read(f'{h100}/timing/features.json')['seconds']:.0f} seconds" in text
    assert f"an epoch {alone:.1f} seconds where one configuration trains alone" in text
    assert f"at the same time took {min(seconds):.1f} to {max(seconds):.1f} minutes each" in text
    name = "test_accuracy"
    distances = [abs(read(f"metrics/train/{key}.json")[name] - read(f"{h100}/train/{key}.json")[name]) for key in KEYS]
    assert f"within {100 * max(distances):.2f} points of those above" in text
    plain = pd.read_csv(ROOT / h100 / "mobilenetv2_plain.csv")
    assert f"in {len(plain)} epochs and one seed on an H100, the plain network's validation accuracy reached" in text
    assert f"accuracy reached {100 * plain['val_accuracy'].max():.1f}%" in text

    trained = [read(file)["seconds"] for file in (ROOT / amx / "timing").glob("*.json")]
    assert f"one configuration per norm in {min(trained) / 60:.1f} to {max(trained) / 60:.1f} minutes" in text
    found = read(f"{amx}/features_unfinished.json")
    done = found["images"] / found["of"]
    features = found["compile_seconds"] + (found["seconds"] - found["compile_seconds"]) / done
    assert f"computed {done:.0%} of the features after {found['seconds'] / 60:.1f}" in text
    timing = ROOT / "metrics/timing"
    rest = sum(read(file)["seconds"] for file in timing.glob("*.json") if file.stem not in {"features", *KEYS})
    study = features + 2 * sum(trained) + rest
    assert len(trained) == len(params.norms) and f"that would make {study / 60:.0f} minutes for a whole study" in text
    avx2, reference = "metrics/other_machines/avx2", "metrics/reference"
    seconds = {file.stem: read(file)["seconds"] / 60 for file in (ROOT / avx2 / "timing").glob("*.json")}
    assert {name for name in seconds if not name.startswith("predictions")} == {f.stem for f in timing.glob("*.json")}
    training = sum(seconds[key] for key in KEYS)
    assert f"in a fresh clone took {sum(seconds.values()):.1f} minutes on two cores" in text
    assert f"{seconds['features']:.1f} of them features and {training:.1f} training" in text
    for key, seed in product(KEYS, params.seeds):
        here, there = (read(f"{folder}/train/{key}.json") for folder in (avx2, reference))
        assert here[f"test_accuracy_seed{seed}"] == there[f"test_accuracy_seed{seed}"], (key, seed)


def test_the_sentences_in_short_hold_for_the_committed_metrics():
    """ "Within a quarter", "at least nine tenths lower, in every seed", "three tenths", "three quarters" of a point."""
    params = load_params(ROOT / "params.yaml")
    points = pd.DataFrame({
        tuple(key.split("-")): [
            100 * read(f"metrics/train/{key}.json")[f"test_accuracy_seed{seed}"] for seed in params.seeds
        ]
        for key in KEYS
    })  # fmt: skip
    means = points.mean()
    others = points[["batchnorm", "layernorm"]]
    assert means[["batchnorm", "layernorm"]].max() - means[["batchnorm", "layernorm"]].min() < 0.25
    assert (others.min(axis=1) - points["frn"].max(axis=1) >= 0.9).all()
    effects = points.xs("clip", axis=1, level=1) - points.xs("noclip", axis=1, level=1)
    assert effects.mean().abs().max() < 0.3 and effects.abs().max().max() < 0.75
    assert effects.min().min() < 0 < effects.max().max()
    assert all(read(f"metrics/train/{norm}-clip.json")["clip_fraction"] == 1 for norm in params.norms)


def test_the_sentences_on_significance_and_errors_are_the_reports_own():
    findings, text = load_findings(load_params(ROOT / "params.yaml"), ROOT), " ".join(README.split())
    for family in ("norms", "clipping"):
        assert describe_significance(findings, family) in text, describe_significance(findings, family)
    for describe in (describe_power, describe_errors, describe_curvature, describe_correlations):
        sentence = describe(findings)
        assert sentence in text, sentence


@pytest.fixture
def reference(tmp_path):
    """The reference run's findings; its files are put where a study's own lie."""
    for folder in ("metrics", "plots"):
        (tmp_path / folder).symlink_to(ROOT / folder / "reference")
    return load_findings(load_params(ROOT / "params.yaml"), tmp_path)


def test_the_reference_runs_contrasts_are_the_committed_ones(reference):
    rows = [[name, points, seeds, images, p] for name, points, seeds, images, p, _ in tabulate_contrasts(reference)]
    assert_table(["first less second", "points", "95% over seeds", "95% over test images", "p (Holm)"], rows)
    for family in ("norms", "clipping"):
        sentence = describe_significance(reference, family)
        assert sentence in " ".join(README.split()), sentence


def test_the_limits_of_the_reference_runs_tests_are_those_of_its_seeds(reference):
    """Before correction, and after Holm's over a family: even the smallest of its p-values is multiplied by all."""
    lowest, text = smallest_p(reference.seeds), " ".join(README.split())
    norms = reference.of_family("norms")
    corrected = len(norms) * lowest
    assert f"reach is {lowest:.2g}, and {corrected:.2g} after Holm's correction over the contrasts between" in text
    assert f"could have reached {len(norms) * smallest_p(6):.2g} at best" in text and len(norms) * smallest_p(7) > ALPHA
    assert describe_power(reference) in text
    found = norms[norms["p_adjusted"] < ALPHA]
    assert np.allclose(found["p_adjusted"], corrected), "these are as significant as they could be"
    assert list(found["contrast"]) == [name for name in norms["contrast"] if "FRN" in name]
    assert (found["mean"] > 0).all()
    assert (reference.of_family("clipping")["p_adjusted"] >= ALPHA).all(), "no effect of clipping"


def test_the_reference_runs_first_seeds_are_as_close_to_the_studys_as_the_page_says(reference):
    params = load_params(ROOT / "params.yaml")
    names = [f"test_accuracy_seed{seed}" for seed in params.seeds]
    own = {key: read(f"metrics/train/{key}.json") for key in KEYS}
    differences = 100 * np.array([[own[key][n] - reference.metrics[key][n] for n in names] for key in KEYS])
    text = " ".join(README.split())
    assert f"by at most {np.abs(differences).max():.2f} points for a single model" in text
    assert f"{np.abs(differences.mean(1)).max():.2f} for a mean" in text


def test_the_reference_runs_heads_with_frn_are_below_all_others(reference):
    sentence = "Every head with FRN, of whichever seed and mode, is below every head with another norm."
    assert sentence in " ".join(README.split())
    assert worse_in_every_seed(reference, "frn")


def test_the_reference_runs_durations_are_the_committed_ones(reference):
    """The timing files have the second sitting's epochs alone."""
    found = {file.stem: read(file) for file in (ROOT / "metrics/reference/timing").glob("*.json")}
    epoch = np.mean([found.pop(key)["seconds_per_epoch"] for key in reference.metrics])
    training = epoch * load_params(ROOT / "params.yaml").train.epochs * len(reference.metrics) * reference.seeds
    features = found.pop("features")["seconds"]
    rest = sum(own["seconds"] for own in found.values())
    text = " ".join(README.split())
    assert f"took {epoch:.1f} seconds, which makes {training / 60:.0f} minutes of training for all" in text
    assert f"gives the same bits, took {features / 60:.0f} minutes and the rest {rest / 60:.0f}" in text


def test_the_sentence_on_saddles_holds_for_the_committed_metrics():
    """ "About half" for FRN, "a tenth or less" for the others."""
    for key in KEYS:
        ratio = read(f"metrics/curvature/{key}.json")["ratio"]
        assert 0.4 < ratio < 0.6 if key.startswith("frn") else ratio <= 0.1, (key, ratio)


def test_the_sentences_on_variants_are_the_side_studies_own():
    for sentence in describe_variants(ROOT).values():
        assert sentence and sentence in " ".join(README.split()), sentence


def test_the_judgements_on_variants_hold_for_the_committed_results():
    """ "Suits small batches holds here", "of FRN does not", and on the map "within a point of the others"."""
    sizes, placements = (read(f"metrics/variants/{study}.json") for study in ("batch_sizes", "placements"))
    lost = {norm: sizes[f"val_accuracy_{norm}_128"] - sizes[f"val_accuracy_{norm}_4"] for norm in STUDIED}
    assert lost["layernorm"] < 0 < 0.005 < min(lost["batchnorm"], lost["frn"])
    on_map = [placements[f"val_accuracy_{norm}_spatial"] for norm in STUDIED]
    assert max(on_map) - placements["val_accuracy_frn_spatial"] < 0.01


def test_frn_under_another_setting_is_the_committed_experiment():
    """Both heads in float32, the same three seeds: what the page, the report and the slides say of FRN's distance."""
    folder, params = "metrics/frn_setting", load_params(path=ROOT / "params.yaml")
    settings, found = read(f"{folder}/settings.json"), read(f"{folder}/train.json")
    curves = pd.read_csv(ROOT / folder / "curves.csv")
    assert (settings["frn_learned_eps"], settings["head_lr"], settings["clip"]) == (1.0, 3e-4, None)
    assert curves["seed"].unique().tolist() == settings["seeds"] == params.seeds
    assert curves.groupby("seed")["val_accuracy"].max().mean() == pytest.approx(found["val_accuracy"])
    names = [f"test_accuracy_seed{seed}" for seed in settings["seeds"]]
    reference = {
        norm: np.mean([read(f"metrics/reference/train/{norm}-noclip.json")[name] for name in names])
        for norm in ("layernorm", "batchnorm", "frn")
    }
    plain = pd.read_csv(ROOT / "plots/reference/curves/frn-noclip.csv")
    best = plain[plain["seed"].isin(settings["seeds"])].groupby("seed")["val_accuracy"].max().mean()
    assert f"from {100 * best:.1f} to {100 * found['val_accuracy']:.1f}%" in frn.qualify_distance("vector")
    distances = [100 * (reference["layernorm"] - accuracy) for accuracy in (found["test_accuracy"], reference["frn"])]
    assert "FRN ended {:.1f} points below LayerNorm under the recipe, instead of {:.1f}".format(
        *distances
    ) in frn.qualify_distance("vector")
    text = " ".join(README.split())
    assert frn.qualify_distance("vector") in text
    assert f"test accuracy {percent(found, 'test_accuracy')}%, where the first three seeds" in text
    means = (f"{100 * accuracy:.2f}%" for accuracy in reference.values())
    assert "have {} for LayerNorm, {} for BatchNorm and {} for FRN".format(*means) in text


def test_the_weights_named_are_those_that_were_used():
    assert f"the weights are `{read('metrics/summary.json')['weights']}`" in README


def test_every_file_that_the_page_shows_or_links_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_make_target_that_the_page_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|\$ )make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
