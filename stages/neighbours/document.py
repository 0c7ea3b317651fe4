"""Write the report on the side studies, plots/documents/neighbours.pdf, from their result files."""

import json
from collections.abc import Iterable

import pandas as pd
import typst

from stages.baseline.share_figures import LEVELS
from stages.core.files import read_json, write
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.neighbours import neighbour_wording as wording
from stages.reporting.image_labels import describe_recipe, name_variant
from stages.reporting.phrases import count
from stages.reporting.results import percent
from stages.variants.variants_wording import describe_variants


def read_metrics(study: str, names: Iterable[str]) -> dict[str, dict]:
    return {name: read_json(f"metrics/{study}/train/{name}.json") for name in names}


def tabulate_costs(metrics: dict[str, dict], costs: list[str], accuracies: list[str]) -> list[list[str]]:
    """Rows variant, costs, accuracies in per cent."""
    return [
        [name_variant(name), *(f"{own[cost]:,}" for cost in costs), *(percent(own, part) for part in accuracies)]
        for name, own in metrics.items()
    ]


def gather_variants(params: Params) -> dict:
    study = params.variants
    recipe = {"epochs": study.epochs, "percent": f"{study.percent:g}", "seeds": count(len(study.seeds), "seed")}
    return recipe | describe_variants()


def gather_baseline(params: Params) -> dict:
    shares = sorted(params.baseline.percents)
    ways = {
        way: {share: read_json(f"metrics/baseline/{folder}/{share:g}.json") for share in shares}
        for way, folder in (("transfer", "transfer"), ("scratch", "train"))
    }
    accuracy = {way: {share: own["test_accuracy"] for share, own in found.items()} for way, found in ways.items()}
    return {
        "rows": [[f"{s:g}", *(percent(found[s], "test_accuracy") for found in ways.values())] for s in shares],
        "shares": wording.describe_shares(**accuracy),
        "speed": wording.describe_speed(read_json("metrics/baseline/comparison.json"), LEVELS),
    }


def gather_unfreezing(params: Params) -> dict:
    study = params.unfreezing
    blocks = sorted(study.trainable_from, reverse=True)
    metrics = read_metrics("unfreezing", blocks)
    named = {f"features.{block}": own for block, own in metrics.items()}
    return {
        "rows": tabulate_costs(named, ["parameters", "multiply_adds", "stored_bytes"], ["test_accuracy"]),
        "accuracy": wording.describe_unfreezing(read_json("metrics/unfreezing/summary.json"), blocks),
        "layers": wording.describe_layers(read_json("metrics/unfreezing/representations.json")),
        "first": blocks[-1],
        "block_lr": f"{study.block_lr:g}",
        "percent": f"{study.percent:g}",
    }


def gather_contrasts(study: str, first: str) -> dict:
    contrasts = pd.read_csv(f"plots/{study}/contrasts.csv")
    return {
        "first": name_variant(first),
        "contrasts": wording.describe_contrasts(contrasts, first),
        "contrast_rows": wording.tabulate_contrasts(contrasts),
    }


def gather_small_cnn(params: Params) -> dict:
    metrics = read_metrics("small_cnn", params.small_cnn.variants)
    sweep, sizes = read_json("metrics/small_cnn_sweep/summary.json"), params.small_cnn_sweep.batch_sizes
    first = next(iter(metrics))
    return gather_contrasts("small_cnn", first) | {
        "rows": tabulate_costs(metrics, ["parameters"], ["val_accuracy", "test_accuracy"]),
        "batch_sizes": wording.describe_batch_sizes(sweep, list(metrics), sizes),
        "common_lrs": wording.describe_common_lrs(sweep, sizes),
        "goal": wording.describe_goal({norm: own["test_accuracy"] for norm, own in metrics.items()}),
        "wrong": f"small_cnn/figures/wrong_{first}.png",
    }


def gather_mobilenetv2(params: Params) -> dict:
    metrics = read_metrics("mobilenetv2", params.mobilenetv2.variants)
    return gather_contrasts("mobilenetv2", next(iter(metrics))) | {
        "rows": tabulate_costs(metrics, ["parameters", "multiply_adds"], ["test_accuracy"]),
        "frontier": wording.describe_frontier(metrics),
        "strides": params.mobilenetv2.strides,
    }


def main(params: Params) -> None:
    gather = {
        "variants": gather_variants,
        "baseline": gather_baseline,
        "unfreezing": gather_unfreezing,
        "small_cnn": gather_small_cnn,
        "mobilenetv2": gather_mobilenetv2,
    }
    data = {study: collect(params) for study, collect in gather.items()}
    for study in ("baseline", "small_cnn", "mobilenetv2"):
        data[study]["recipe"] = describe_recipe(getattr(params, study))
    data["weights"] = read_json("models/backbone.json")["weights"]
    pdf = typst.compile("stages/neighbours/document.typ", root=".", sys_inputs={"data": json.dumps(data)})
    write("plots/documents/neighbours.pdf", lambda path: path.write_bytes(pdf))
    print(f"plots/documents/neighbours.pdf: {len(pdf) / 1e6:.1f} MB")


if __name__ == "__main__":
    run_stage(main, timing="neighbours/document")
