"""Draw the figures of MobileNetV2's variants, and sum them up: `python -m stages.mobilenetv2.report`."""

from stages.core.params import Params
from stages.core.stage import run_stage
from stages.reporting.image_labels import describe_recipe, name_variant
from stages.reporting.image_report import report_study


def main(params: Params) -> None:
    study = params.mobilenetv2
    report_study("mobilenetv2", {name: name_variant(name) for name in study.variants}, describe_recipe(study))


if __name__ == "__main__":
    run_stage(main, timing="mobilenetv2/report")
