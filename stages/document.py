"""Write the report and the slides, plots/documents/*.pdf, from the result files."""

import json

import typst

from stages.core.files import read_json, write
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.models.configurations import label_of
from stages.models.norms import load_norm
from stages.reporting import wording
from stages.reporting.phrases import count, join
from stages.reporting.published import CAVEAT
from stages.reporting.results import tabulate
from stages.reporting.wording import Findings, load_findings

TEMPLATES = {"document": "report", "slides": "slides"}
EQUATION = ("label", "equation", "statistics", "reference")  # of a norm
TITLE = "Which normalization should a new head use, and does gradient clipping help?"


def write_sentences(findings: Findings) -> dict[str, str]:
    return {
        "ranking": wording.describe_ranking(findings),
        "norms": wording.describe_significance(findings, "norms"),
        "clipping_tests": wording.describe_significance(findings, "clipping"),
        "clipping": " ".join(wording.describe_clipping(findings, norm) for norm in findings.norms),
        "steps": wording.describe_clipped_steps(findings),
        "power": wording.describe_power(findings),
        "gradients": wording.describe_gradients(findings),
        "landscapes": wording.describe_landscapes(findings),
        "curvature": wording.describe_curvature(findings),
        "correlations": wording.describe_correlations(findings),
        "errors": wording.describe_errors(findings),
        "head": wording.describe_head(findings.placement),
        "block_statistics": wording.describe_block_statistics(findings.block_bn_statistics),
        "distances": wording.explain_distances(findings),
        "recommend_norm": wording.recommend_norm(findings),
        "recommend_clipping": wording.recommend_clipping(findings),
    }


def gather_data(params: Params) -> dict:
    """All that the templates print."""
    findings, backbone = load_findings(params), read_json("models/backbone.json")
    header, rows = tabulate(findings.metrics)
    batches = next(iter(findings.gradients.values()))
    norms = [load_norm(norm) for norm in params.norms]
    train, images = params.train, params.data.images or 50_000
    return {
        "title": TITLE,
        "subtitle": f"{join([label_of(norm) for norm in params.norms])} heads on MobileNetV2, for CIFAR-10",
        "norms": [{name: getattr(norm, name) for name in EQUATION} for norm in norms],
        "remarks": [norm.remark(train.placement) for norm in norms],
        "weights": backbone["weights"],
        "image_size": backbone["image_size"],
        "frozen": f"features[0:{backbone['trainable_from']}]",
        "trained": list(dict.fromkeys([f"features.{backbone['trainable_from']}", "features.18"])),
        "comparison": f"{count(len(findings.metrics), 'configuration')}: {count(len(params.norms), 'norm')}",
        "seeds": count(findings.seeds, "seed"),
        "clip": f"{params.clip:g}",
        "training_images": f"{images:,}",
        "validation_images": f"{round(images * params.data.validation_fraction):,}",
        "test_images": f"{images // 5:,}",
        "views": count(params.features.views, "stored view"),
        "epochs": train.epochs,
        "batch_size": train.batch_size,
        "dropout": train.dropout,
        "head_lr": f"{train.head_lr:g}",
        "block_lr": f"{train.block_lr:g}",
        "gradient_batch": batches["batch_size"],
        "snr_floor": f"{wording.snr_without_signal(batches['batches']):.3f}",
        "results": {"header": header, "rows": rows},
        "contrasts": wording.tabulate_contrasts(findings),
        "gradients": wording.tabulate_gradients(findings),
        "curvature": wording.tabulate_curvature(findings),
        "claims": wording.tabulate_claims(findings),
        "verdicts": wording.compare_with_claims(findings),
        "others": wording.tabulate_others(findings),
        "caveat": CAVEAT,
        "sentences": write_sentences(findings),
    }


def main(params: Params) -> None:
    data = {"data": json.dumps(gather_data(params))}
    for template, name in TEMPLATES.items():
        pdf = typst.compile(f"stages/{template}.typ", root=".", sys_inputs=data)
        write(f"plots/documents/{name}.pdf", lambda path, pdf=pdf: path.write_bytes(pdf))
        print(f"plots/documents/{name}.pdf: {len(pdf) / 1e6:.1f} MB")


if __name__ == "__main__":
    run_stage(main, timing="document")
