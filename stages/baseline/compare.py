"""Set the frozen transfer model beside the CNN from scratch, in figures and in a summary."""

import pandas as pd

from stages.baseline.share_figures import LEVELS, WAYS, Comparison, draw_bars, draw_shares, first_epoch_at
from stages.core.files import read_json, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.reporting.captions import read_caption
from stages.reporting.image_figures import draw_curves
from stages.reporting.plotting import save_figure


def load_comparison(percents: list[float]) -> Comparison:
    percents, most = sorted(percents), max(percents)
    folders = {"transfer": "metrics/baseline/transfer", "scratch": "metrics/baseline/train"}
    transfer = pd.read_csv("plots/baseline/transfer.csv")
    return Comparison(
        {way: {p: read_json(f"{folder}/{p:g}.json") for p in percents} for way, folder in folders.items()},
        {
            "transfer": transfer[transfer["percent"] == most],
            "scratch": pd.read_csv(f"plots/baseline/curves/{most:g}.csv"),
        },
        round(100 * transfer["images"].max() / most),
    )


def main(params: Params) -> None:
    study = params.baseline
    comparison, caption = load_comparison(study.percents), read_caption(len(study.seeds))
    curves = {WAYS[way][0]: table for way, table in comparison.curves.items()}
    save_figure(draw_curves(curves, caption), "plots/baseline/comparison/curves.png")
    save_figure(draw_shares(comparison, caption), "plots/baseline/comparison/shares.png")
    save_figure(draw_bars(comparison, caption), "plots/baseline/comparison/bars.png")
    summary: dict[str, float | None] = {"seeds": len(study.seeds)}
    for way, by_share in comparison.metrics.items():
        summary |= {f"test_accuracy_{way}_{percent:g}": own["test_accuracy"] for percent, own in by_share.items()}
        summary |= {
            f"epochs_to_{level}pct_{way}": first_epoch_at(comparison.curves[way], level / 100) for level in LEVELS
        }
    write_json("metrics/baseline/comparison.json", summary)


if __name__ == "__main__":
    run_stage(main, timing="baseline/compare")
