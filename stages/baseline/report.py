"""Draw the figures of the CNN from scratch on each share of the images, and sum them up."""

from stages.core.params import Params
from stages.core.stage import run_stage
from stages.reporting.image_labels import describe_recipe
from stages.reporting.image_report import report_study


def main(params: Params) -> None:
    study = params.baseline
    labels = {f"{percent:g}": f"{percent:g}% of the images" for percent in study.percents}
    report_study("baseline", labels, describe_recipe(study))


if __name__ == "__main__":
    run_stage(main, timing="baseline/report")
