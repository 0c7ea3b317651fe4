"""Draw one study of variants, and sum it up: `python -m stages.variants.summary thresholds`."""

import pandas as pd

from stages.core.files import write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.reporting.captions import read_caption
from stages.reporting.plotting import save_figure
from stages.variants.variant_figures import draw_variants, summarize_variants


def main(params: Params, study: str) -> None:
    own = params.variants
    table = pd.read_csv(f"plots/variants/{study}.csv", dtype={"variant": str})
    caption = f"{read_caption(len(own.seeds))}; {own.percent:g}% of the training images, {own.epochs} epochs"
    save_figure(draw_variants(table, study, caption), f"plots/variants/{study}.png")
    write_json(f"metrics/variants/{study}.json", summarize_variants(table))


if __name__ == "__main__":
    run_stage(main, "study", timing="variants/summary-{}")
