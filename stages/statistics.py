"""Which differences between the configurations are real: tests over seeds and over test images."""

import pandas as pd

from stages.core.files import write_csv, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.measure.contrasts import compare_over_images, compare_over_seeds
from stages.measure.paired_tests import ALPHA, smallest_p
from stages.models.configurations import list_keys
from stages.reporting.captions import read_caption
from stages.reporting.contrast_figures import draw_contrasts
from stages.reporting.plotting import save_figure
from stages.training.predictions import load_predictions


def write_table(name: str, table: pd.DataFrame) -> None:
    write_csv(f"plots/statistics/{name}.csv", table, "%.6g")


def main(params: Params) -> None:
    predictions = load_predictions(list_keys(params.norms))
    seeds, images = compare_over_seeds(predictions, params.norms), compare_over_images(predictions, params.norms)
    write_table("seeds", seeds)
    write_table("images", images)
    figure = draw_contrasts(seeds, predictions, read_caption(len(params.seeds)))
    save_figure(figure, "plots/statistics/contrasts.png")
    metrics = {"seeds": len(params.seeds), "smallest_p_possible": smallest_p(len(params.seeds))}
    for family in seeds["family"].unique():
        rows, tests = seeds[seeds["family"] == family], images[images["family"] == family]
        metrics |= {
            f"{family}_contrasts": len(rows),
            f"{family}_largest_effect": rows["mean"].abs().max(),
            f"{family}_smallest_p_adjusted": rows["p_adjusted"].min(),
            f"{family}_significant_over_seeds": int((rows["p_adjusted"] < ALPHA).sum()),
            f"{family}_tests_over_images": len(tests),
            f"{family}_significant_over_images": int((tests["p_adjusted"] < ALPHA).sum()),
        }
    write_json("metrics/statistics.json", metrics)
    print(f"{int((seeds['p_adjusted'] < ALPHA).sum())} of {len(seeds)} contrasts are significant over seeds")


if __name__ == "__main__":
    run_stage(main, timing="statistics")
