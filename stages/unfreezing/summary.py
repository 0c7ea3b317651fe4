"""Set accuracy against cost, for every first block that trains."""

import pandas as pd

from stages.core.files import read_json, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.reporting.captions import read_caption
from stages.reporting.image_figures import draw_curves, draw_frontier
from stages.reporting.plotting import save_figure


def main(params: Params) -> None:
    study = params.unfreezing
    blocks = {f"from features.{block}": block for block in sorted(study.trainable_from, reverse=True)}
    metrics = {name: read_json(f"metrics/unfreezing/train/{block}.json") for name, block in blocks.items()}
    curves = {name: pd.read_csv(f"plots/unfreezing/curves/{block}.csv") for name, block in blocks.items()}
    caption = f"{read_caption(len(study.seeds))}; {study.percent:g}% of the training images"
    save_figure(draw_frontier(metrics, caption), "plots/unfreezing/figures/costs.png")
    save_figure(draw_curves(curves, caption), "plots/unfreezing/figures/curves.png")
    summary = {}
    for name, block in blocks.items():
        own = metrics[name]
        summary |= {f"{key}_{block}": own[key] for key in ("test_accuracy", "multiply_adds", "parameters")}
    write_json("metrics/unfreezing/summary.json", {"seeds": len(study.seeds)} | summary)


if __name__ == "__main__":
    run_stage(main, timing="unfreezing/summary")
