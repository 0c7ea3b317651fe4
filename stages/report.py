"""Draw the figures and sum the study up, from the result files of all configurations."""

from stages.core.files import write_csv, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.reporting.figures import FIGURES
from stages.reporting.headlines import combine_curves, headline_metrics
from stages.reporting.plotting import save_figure
from stages.reporting.results import load_results, summarize_study


def main(params: Params) -> None:
    results = load_results(params.norms)
    for name, draw in FIGURES.items():
        save_figure(draw(results), f"plots/figures/{name}.png")
    write_csv("plots/curves.csv", combine_curves(results.keys))
    write_json("metrics/test_accuracy.json", headline_metrics(results.metrics))
    write_json("metrics/summary.json", summarize_study(results))
    print(f"{len(FIGURES)} figures in plots/figures, summary in metrics/summary.json")


if __name__ == "__main__":
    run_stage(main, timing="report")
