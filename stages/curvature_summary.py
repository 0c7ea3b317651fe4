"""Draw the curvature of all configurations, and say what of it goes along with the generalization gap."""

from stages.core.files import write_csv, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.measure.paired_tests import ALPHA
from stages.reporting.curvature_figures import FIGURES, draw_correlations
from stages.reporting.curvature_results import correlate_with_gap, load_curvature, summarize_correlations
from stages.reporting.plotting import save_figure


def main(params: Params) -> None:
    results = load_curvature(params.norms)
    table = correlate_with_gap(results.models)
    for name, draw in FIGURES.items():
        save_figure(draw(results), f"plots/curvature_figures/{name}.png")
    save_figure(draw_correlations(results, table), "plots/curvature_figures/correlations.png")
    write_csv("plots/curvature_correlations.csv", table, "%.6g")
    write_json("metrics/curvature.json", summarize_correlations(table))
    found = table[(table["scope"] == "within norms") & (table["p_adjusted"] < ALPHA)]["measure"].tolist()
    print(f"within norms, {len(found)} measures go along with the generalization gap: {', '.join(found) or 'none'}")


if __name__ == "__main__":
    run_stage(main, timing="curvature_summary")
