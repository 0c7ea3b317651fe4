"""What the pages of the side studies print, by study: rows of tables and sentences, from the committed results."""

from pathlib import Path

import pandas as pd

from stages.baseline.share_figures import LEVELS
from stages.core.files import read_json
from stages.core.params import Params
from stages.models.configurations import label_of
from stages.neighbours import neighbour_wording
from stages.reporting.image_labels import describe_recipe, name_variant
from stages.reporting.phrases import count, join
from stages.reporting.published import OTHERS
from stages.reporting.results import percent
from stages.tools import page_wording
from stages.variants.variant_figures import PANELS, summarize_runs
from stages.variants.variants_wording import describe_variants

CLAIM = "CNN of 47,876 parameters"  # of published.OTHERS
SIDE_STUDIES = {  # folder -> what it compares
    "variants": "clipping thresholds, batch sizes and placements of the main study's norms",
    "unfreezing": "how much of MobileNetV2 trains: accuracy, cost, layers before and after",
    "baseline": "a small network from scratch and the frozen MobileNetV2, on few and many images",
    "small_cnn": "three norms in a CNN of fewer than 50,000 parameters",
    "small_cnn_sweep": "batch sizes and learning rates of that CNN",
    "mobilenetv2": "MobileNetV2 from scratch: other activations, widths, kernels, expansions",
    "cache_study": "what storing features costs in accuracy",
}


def count_minutes(root: Path, study: str) -> str:
    """What the stages of a side study took in all, and `-` where it has not been run."""
    seconds = [read_json(file)["seconds"] for file in (root / "metrics/timing" / study).glob("*.json")]
    return f"{sum(seconds) / 60:.0f}" if seconds else "-"


def tabulate_studies(root: Path, link: str) -> list[list[str]]:
    """Rows study, what it compares, minutes; `link` has the place of the study's folder as `{}`."""
    return [
        [f"[`{study}`]({link.format(study)})", question, count_minutes(root, study)]
        for study, question in SIDE_STUDIES.items()
    ]


def list_names(root: Path, study: str) -> list[str]:
    """The variants that a study of images has results of, the first of which the others are compared with."""
    start = "test_accuracy_"
    summary = read_json(root / f"metrics/{study}/summary.json")
    return [name.removeprefix(start) for name in summary if name.startswith(start)]


def read_trained(root: Path, study: str) -> dict[str, dict]:
    return {name: read_json(root / f"metrics/{study}/train/{name}.json") for name in list_names(root, study)}


def read_timing(root: Path, study: str, name: str) -> dict:
    return read_json(root / f"metrics/timing/{study}/{name}.json")


def millions(number: float) -> str:
    return f"{number / 1e6:.1f}"


def points(share: float) -> str:
    return f"{100 * share:.2f}"


def gather_variants(params: Params, root: Path) -> dict:
    study = params.variants
    tables = {name: pd.read_csv(root / f"plots/variants/{name}.csv", dtype={"variant": str}) for name in PANELS}
    return describe_variants(root) | {
        "epochs": count(study.epochs, "epoch"),
        "percent": f"{study.percent:g}",
        "seeds": count(len(study.seeds), "seed"),
        "small_batches": page_wording.judge_small_batches(summarize_runs(tables["batch_sizes"])),
        "norms": join([label_of(norm) for norm in tables["thresholds"]["norm"].unique()]),
    }


def count_stored_images(params: Params, views: int) -> int:
    """How many images' features are stored with so many views: of every part, and of a sample without augmentation."""
    images, held_out = params.data.images or 50_000, params.data.validation_fraction
    train = round(images * (1 - held_out))
    return views * train + (images - train) + images // 5 + min(params.features.train_eval_images, train)


def gather_cache_study(params: Params, root: Path) -> dict:
    found = read_json(root / "metrics/cache_study/views.json")
    precision = read_json(root / "metrics/cache_study/precision.json")
    views = sorted(params.cache_study.views)
    return {
        "header": ["views", "best validation accuracy (%)", f"below {views[-1]} views (points)"],
        "rows": [
            [str(n), percent(found, f"val_accuracy_views{n}"), points(found[f"below_most_views{n}"])] for n in views
        ],
        "norm": label_of(params.cache_study.norm),
        "seeds": count(found["seeds"], "seed"),
        "most": views[-1],
        "default": params.features.views,
        "times": f"{count_stored_images(params, views[-1]) / count_stored_images(params, params.features.views):.1f}",
        "flipped": f"{100 * precision['flipped_max']:.1f}",
        "difference": f"{100 * precision['accuracy_difference_max']:.1f}",
        "images": f"{precision['images']:,}",
    }


def gather_unfreezing(params: Params, root: Path) -> dict:
    study = params.unfreezing
    blocks = sorted(study.trainable_from, reverse=True)
    rows = []
    for block in blocks:
        own = read_json(root / f"metrics/unfreezing/train/{block}.json")
        seconds = read_timing(root, "unfreezing", f"train-{block}")["seconds_per_epoch"]
        costs = [f"{own['parameters']:,}", millions(own["multiply_adds"]), f"{own['stored_bytes'] / 1000:.1f}"]
        rows.append([f"`features.{block}`", *costs, f"{seconds:.1f}", percent(own, "test_accuracy")])
    curves = {block: pd.read_csv(root / f"plots/unfreezing/curves/{block}.csv") for block in blocks}
    return {
        "rows": rows,
        "blocks": join([str(block) for block in blocks]),
        "norm": label_of(study.norm),
        "block_lr": f"{study.block_lr:g}",
        "epochs": count(study.epochs, "epoch"),
        "percent": f"{study.percent:g}",
        "seeds": count(len(study.seeds), "seed"),
        "accuracy": neighbour_wording.describe_unfreezing(read_json(root / "metrics/unfreezing/summary.json"), blocks),
        "layers": neighbour_wording.describe_layers(read_json(root / "metrics/unfreezing/representations.json")),
        "jumps": page_wording.describe_jumps(curves),
    }


def gather_baseline(params: Params, root: Path) -> dict:
    shares = sorted(params.baseline.percents)
    ways = {
        way: {share: read_json(root / f"metrics/baseline/{folder}/{share:g}.json") for share in shares}
        for way, folder in (("transfer", "transfer"), ("scratch", "train"))
    }
    accuracies = [{share: own["test_accuracy"] for share, own in found.items()} for found in ways.values()]
    gaps = [{share: own["generalization_gap"] for share, own in found.items()} for found in ways.values()]
    images = round((params.data.images or 50_000) * (1 - params.data.validation_fraction))
    frozen, scratch = (f"seconds_per_epoch{end}" for end in ("_100", ""))
    return {
        "rows": [
            [
                f"{images * share / 100:,.0f}",
                *(percent(found[share], "test_accuracy") for found in ways.values()),
                *(points(found[share]["generalization_gap"]) for found in ways.values()),
            ]
            for share in shares
        ],
        "recipe": describe_recipe(params.baseline),
        "shares": neighbour_wording.describe_shares(*accuracies),
        "leads": page_wording.describe_leads(*accuracies),
        "gaps": page_wording.compare_gaps(*gaps),
        "speed": neighbour_wording.describe_speed(read_json(root / "metrics/baseline/comparison.json"), LEVELS),
        "seconds_frozen": f"{read_timing(root, 'baseline', 'transfer')[frozen]:.2f}",
        "seconds_scratch": f"{read_timing(root, 'baseline', '100')[scratch]:.1f}",
    }


def gather_small_cnn(params: Params, root: Path) -> dict:
    metrics = read_trained(root, "small_cnn")
    rows = [
        [
            name_variant(name),
            f"{own['parameters']:,}",
            *(percent(own, f"{part}_accuracy") for part in ("test", "val")),
            points(own["generalization_gap"]),
            f"{read_timing(root, 'small_cnn', name)['latency_ms']:.1f}",
        ]
        for name, own in metrics.items()
    ]
    claim, doubt = OTHERS[CLAIM]
    return {
        "rows": rows,
        "recipe": describe_recipe(params.small_cnn),
        "goal": neighbour_wording.describe_goal({name: own["test_accuracy"] for name, own in metrics.items()}),
        "claim": claim,
        "doubt": doubt,
        "order": page_wording.describe_order(
            {name_variant(name): own["val_accuracy"] for name, own in metrics.items()}
        ),
        "contrasts": describe_contrasts(root, "small_cnn"),
        "wrong": list(metrics)[-1],
        "wrong_label": name_variant(list(metrics)[-1]),
        "seeds": count(len(params.small_cnn.seeds), "seed"),
    }


def gather_small_cnn_sweep(params: Params, root: Path) -> dict:
    study, found = params.small_cnn_sweep, read_json(root / "metrics/small_cnn_sweep/summary.json")
    return {
        "epochs": count(study.epochs, "epoch"),
        "percent": f"{study.percent:g}",
        "seeds": count(len(study.seeds), "seed"),
        "sizes": join([str(size) for size in study.batch_sizes]),
        "lrs": join([f"{lr:g}" for lr in study.lrs]),
        "common_lrs": neighbour_wording.describe_common_lrs(found, study.batch_sizes),
        "chosen": page_wording.describe_chosen_lr(found, study.batch_sizes, params.small_cnn.lr),
        "batch_sizes": neighbour_wording.describe_batch_sizes(found, list_names(root, "small_cnn"), study.batch_sizes),
    }


def gather_mobilenetv2(params: Params, root: Path) -> dict:
    metrics = read_trained(root, "mobilenetv2")
    long = pd.read_csv(root / "metrics/other_machines/h100/mobilenetv2_plain.csv")
    rows = [
        [
            name_variant(name),
            f"{own['parameters']:,}",
            millions(own["multiply_adds"]),
            f"{read_timing(root, 'mobilenetv2', name)['latency_ms']:.1f}",
            percent(own, "test_accuracy"),
        ]
        for name, own in metrics.items()
    ]
    return {
        "rows": rows,
        "recipe": describe_recipe(params.mobilenetv2),
        "strides": params.mobilenetv2.strides,
        "frontier": neighbour_wording.describe_frontier(metrics),
        "contrasts": describe_contrasts(root, "mobilenetv2"),
        "long_epochs": len(long),
        "long_accuracy": f"{100 * long['val_accuracy'].max():.1f}",
    }


def describe_contrasts(root: Path, study: str) -> str:
    contrasts = pd.read_csv(root / f"plots/{study}/contrasts.csv")
    return neighbour_wording.describe_contrasts(contrasts, first=list_names(root, study)[0])


def gather_neighbours(params: Params, root: Path) -> dict:
    return {"studies": tabulate_studies(root, "../{}/README.md")}
