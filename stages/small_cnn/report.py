"""Draw the figures of the small CNN's variants, and sum them up: `python -m stages.small_cnn.report`."""

from stages.core.params import Params
from stages.core.stage import run_stage
from stages.reporting.image_labels import describe_recipe, name_variant
from stages.reporting.image_report import report_study


def main(params: Params) -> None:
    study = params.small_cnn
    report_study("small_cnn", {name: name_variant(name) for name in study.variants}, describe_recipe(study))


if __name__ == "__main__":
    run_stage(main, timing="small_cnn/report")
