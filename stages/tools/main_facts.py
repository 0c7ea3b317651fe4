"""What the front page and the main study's page print: rows of tables and sentences, from the committed results."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from stages.core.files import read_json
from stages.core.params import Params
from stages.measure.paired_tests import ALPHA
from stages.models.configurations import list_keys, name_of
from stages.models.norms import frn
from stages.reporting import wording
from stages.reporting.phrases import count, join, span
from stages.reporting.published import CAVEAT
from stages.reporting.results import percent, tabulate
from stages.reporting.wording import Findings, load_findings
from stages.tools import page_wording
from stages.tools.study_facts import count_stored_images, tabulate_studies

ROOMS = ("core", "models", "data", "training", "measure", "reporting", "tools")
REFERENCE = "reference"
# Parts of the table of durations: title -> files of metrics/timing, {} standing for a configuration.
PARTS = {
    "prepare": ["prepare"],
    "backbone": ["backbone"],
    "features": ["features"],
    "train, {} configurations": ["{}"],
    "landscape, {} configurations": ["landscape-{}"],
    "gradients, {} configurations": ["gradients-{}"],
    "curvature, {} configurations": ["curvature-{}"],
    "statistics, errors and curvature_summary": ["statistics", "errors", "curvature_summary"],
    "report, document and notebook": ["report", "document", "notebook"],
}


def load_reference(params: Params, root: Path) -> Findings:
    """Of the run with more seeds, for the norms that it has."""
    keys = read_json(root / f"metrics/{REFERENCE}/test_accuracy.json")
    norms = list(dict.fromkeys(key.split("-")[0] for key in keys))
    return load_findings(replace(params, norms=norms), root, REFERENCE)


def read_timings(folder: Path) -> dict[str, dict]:
    return {file.stem: read_json(file) for file in folder.glob("*.json")}


def tabulate_accuracies(study: Findings, reference: Findings) -> list[list[str]]:
    """Rows configuration, test accuracy in the reference run and in the study; a dash where a run has it not."""

    def show(findings: Findings, key: str) -> str:
        return percent(findings.metrics[key], "test_accuracy") if key in findings.metrics else "-"

    keys = dict.fromkeys([*reference.metrics, *study.metrics])
    return [[name_of(key), show(reference, key), show(study, key)] for key in keys]


def read_docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]


def tabulate_rooms(root: Path) -> list[list[str]]:
    """Rows room, what it holds as its package says."""
    return [[f"`stages/{room}/`", read_docstring(root / f"stages/{room}/__init__.py")] for room in ROOMS]


def gather_answers(params: Params, root: Path) -> dict:
    """What both pages say of the study and of the reference run."""
    study, reference = load_findings(params, root), load_reference(params, root)
    return {
        "seeds": count(study.seeds, "seed"),
        "reference_seeds": count(reference.seeds, "seed"),
        "configurations": len(study.metrics),
        "weights": read_json(root / "metrics/summary.json")["weights"],
        "answer_norms": page_wording.answer_norms(reference),
        "answer_clipping": page_wording.answer_clipping(reference),
        "reference_precision": read_json(root / f"metrics/{REFERENCE}/environment.json")["precision"]["train"],
        "precision": read_json(root / "metrics/environment.json")["precision"]["train"],
        "reference_norms": wording.describe_significance(reference, "norms"),
        "reference_clipping": wording.describe_significance(reference, "clipping"),
        "reference_power": wording.describe_power(reference),
        "recommend_norm": wording.recommend_norm(reference),
        "recommend_clipping": wording.recommend_clipping(reference),
        "clip_effects": page_wording.describe_clip_effects(study),
        "power": wording.describe_power(study),
        "alpha": ALPHA,
        "accuracies": tabulate_accuracies(study, reference),
    }


def gather_front(params: Params, root: Path) -> dict:
    study, reference = (read_json(root / f"metrics/{folder}/test_accuracy.json") for folder in (".", REFERENCE))
    key, plain = list(study)[-1], read_timings(root / "metrics/other_machines/avx2/timing")
    return gather_answers(params, root) | {
        "studies": tabulate_studies(root, "stages/{}/README.md"),
        "rooms": tabulate_rooms(root),
        "minutes_in_all": tabulate_durations(params, root)[-1][1],
        "minutes_without_bfloat16": f"{sum(own['seconds'] for own in plain.values()) / 60:.0f}",
        "example": {"key": key, "before": study[key], "after": reference[key], "change": reference[key] - study[key]},
    }


def tabulate_durations(params: Params, root: Path) -> list[list[str]]:
    """Rows part of the main study, minutes; the last one is their sum."""
    keys, found = list_keys(params.norms), read_timings(root / "metrics/timing")
    names = {
        part.format(len(keys)): [file.format(key) for file in files for key in (keys if "{}" in file else keys[:1])]
        for part, files in PARTS.items()
    }
    minutes = {part: sum(found[name]["seconds"] for name in own) / 60 for part, own in names.items()}
    return [[part, f"{value:.1f}"] for part, value in (minutes | {"all": sum(minutes.values())}).items()]


def tabulate_stages(root: Path) -> list[list[str]]:
    """Rows stage, what it does, what it writes; of dvc.yaml, durations left out."""
    stages = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    rows = []
    for name, stage in stages.items():
        outputs = [out if isinstance(out, str) else next(iter(out)) for kind in ("outs", "metrics", "plots")
                   for out in stage.get(kind, [])]  # fmt: skip
        written = [re.sub(r"\$\{.*\}", "<key>", out) for out in outputs if not out.startswith("metrics/timing")]
        rows.append([f"`{name}`", stage["desc"], ", ".join(f"`{out}`" for out in written)])
    return rows


def gather_setting(reference: Findings, root: Path) -> dict:
    """FRN under another setting, beside the same seeds of the reference run."""
    settings, found = (read_json(root / f"metrics/frn_setting/{name}.json") for name in ("settings", "train"))
    names = [f"test_accuracy_seed{seed}" for seed in settings["seeds"]]
    means = {
        wording.label_of(norm): np.mean([reference.metrics[f"{norm}-noclip"][name] for name in names])
        for norm in reference.norms
    }
    return {
        "sentence": frn.qualify_distance("vector"),
        "accuracy": percent(found, "test_accuracy"),
        "others": join([f"{100 * mean:.2f}% for {label}" for label, mean in means.items()]),
        "seeds": count(len(names), "seed"),
        "products": settings["products"],
        "frn_learned_eps": settings["frn_learned_eps"],
        "head_lr": settings["head_lr"],
    }


def gather_reference(params: Params, study: Findings, reference: Findings, root: Path) -> dict:
    """Its tests, and what it took; only the last sitting's seeds are in the files of durations."""
    found = read_timings(root / f"metrics/{REFERENCE}/timing")
    trained = [found.pop(key) for key in reference.metrics]
    epoch = float(np.mean([own["seconds_per_epoch"] for own in trained]))
    later = trained[0]["epochs_timed"] // params.train.epochs
    features = found.pop("features")["seconds"]
    return {
        "contrasts": [row[:-1] for row in wording.tabulate_contrasts(reference)],
        "ranks": page_wording.describe_ranks(reference),
        "reach": page_wording.describe_reach(reference),
        "sittings": page_wording.describe_sittings(reference, later) if later < reference.seeds else "",
        "distance": page_wording.compare_runs(study.metrics, reference.metrics),
        "epoch": f"{epoch:.1f}",
        "training": f"{epoch * params.train.epochs * len(trained) * reference.seeds / 60:.0f}",
        "features": f"{features / 60:.0f}",
        "rest": f"{sum(own['seconds'] for own in found.values()) / 60:.0f}",
    }


def gather_elsewhere(study: Findings, reference: Findings, root: Path) -> dict:
    """What the study took on other machines."""
    folder = root / "metrics/other_machines"
    gpu, amx, plain = (read_timings(folder / f"{name}/timing") for name in ("h100", "amx", "avx2"))
    trained = [gpu[key]["seconds"] / 60 for key in study.metrics if key in gpu]
    found = read_json(folder / "amx/features_unfinished.json")
    own = {key: read_json(folder / f"h100/train/{key}.json") for key in study.metrics if key in gpu}
    distance = max(abs(study.metrics[key]["test_accuracy"] - other["test_accuracy"]) for key, other in own.items())
    without = {key: read_json(folder / f"avx2/train/{key}.json") for key in study.metrics if key in plain}
    same = all(
        value == reference.metrics[key].get(name)
        for key, metrics in without.items()
        for name, value in metrics.items()
        if name.startswith("test_accuracy_seed")
    )
    return {
        "gpu_features": f"{gpu['features']['seconds']:.0f}",
        "gpu_epoch": f"{read_json(folder / 'h100/epoch_alone.json')['seconds']:.1f}",
        "gpu_training": span(trained, 1),
        "gpu_distance": f"{100 * distance:.2f}",
        "amx_training": span([timing["seconds"] / 60 for timing in amx.values()], 1),
        "amx_configurations": len(amx),
        "amx_share": f"{found['images'] / found['of']:.0%}",
        "amx_features": f"{found['seconds'] / 60:.1f}",
        "plain_all": f"{sum(timing['seconds'] for timing in plain.values()) / 60:.1f}",
        "plain_features": f"{plain['features']['seconds'] / 60:.1f}",
        "plain_training": f"{sum(plain[key]['seconds'] for key in without) / 60:.1f}",
        "plain_same": "are" if same else "are not",
    }


def describe_disk(params: Params, root: Path) -> str:
    """Gigabytes of stored features; empty where the size of an image's is not known."""
    path = root / f"metrics/unfreezing/train/{params.backbone.trainable_from}.json"
    size = read_json(path)["stored_bytes"] if path.exists() else 0
    return f"{size * count_stored_images(params, params.features.views) / 1e9:.1f}" if size else ""


def gather_main_study(params: Params, root: Path) -> dict:
    study, reference = load_findings(params, root), load_reference(params, root)
    curves = {key: pd.read_csv(root / f"plots/curves/{key}.csv") for key in study.metrics}
    header, results = tabulate(study.metrics)
    return gather_answers(params, root) | {
        "header": header,
        "results": results,
        "ranking": wording.describe_ranking(study),
        "ranks": page_wording.describe_ranks(study),
        "distances": wording.explain_distances(study),
        "gaps": page_wording.describe_gaps(study),
        "last_epoch": page_wording.describe_last_epoch(curves),
        "steps": wording.describe_clipped_steps(study),
        "claims": wording.tabulate_claims(study),
        "verdicts": wording.compare_with_claims(study),
        "caveat": CAVEAT,
        "landscapes": wording.describe_landscapes(study),
        "norms": wording.describe_significance(study, "norms"),
        "clipping": wording.describe_significance(study, "clipping"),
        "errors": wording.describe_errors(study),
        "curvature": wording.describe_curvature(study),
        "correlations": wording.describe_correlations(study),
        "saddles": page_wording.describe_saddles(study),
        "curvature_images": f"{next(iter(study.curvature.values()))['images']:,}",
        "setting": gather_setting(reference, root),
        "reference": gather_reference(params, study, reference, root),
        "stages": tabulate_stages(root),
        "stored": describe_disk(params, root),
        "durations": tabulate_durations(params, root),
        "elsewhere": gather_elsewhere(study, reference, root),
        "studies": tabulate_studies(root, "{}/README.md"),
        "head": wording.describe_head(study.placement),
        "block_statistics": wording.describe_block_statistics(study.block_bn_statistics),
    }
