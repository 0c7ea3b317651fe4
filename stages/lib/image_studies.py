"""The studies that train from images: which networks they compare, and by which recipe."""

from dataclasses import dataclass, replace
from itertools import product

from stages.lib.image_training import Recipe
from stages.lib.mobilenetv2 import STRIDES, VARIANTS
from stages.lib.params import Params, ParamsError, choice, integer, is_int, is_number, list_of, number
from stages.lib.small_cnn import NORMS


@dataclass(frozen=True)
class Baseline(Recipe):
    percents: list[float] = list_of("numbers in (0, 100]", lambda v: is_number(v) and 0 < v <= 100)


@dataclass(frozen=True)
class SmallCNN(Recipe):
    norms: list[str] = list_of(", ".join(NORMS), lambda v: v in NORMS)


@dataclass(frozen=True)
class SmallCNNSweep:
    """What the sweep changes of the recipe of `small_cnn`."""

    seeds: list[int] = list_of("integers >= 0", lambda v: is_int(v) and v >= 0)
    epochs: int = integer(1)
    percent: float = number("in (0, 100]", lambda v: 0 < v <= 100)
    batch_sizes: list[int] = list_of("integers >= 2", lambda v: is_int(v) and v >= 2)
    lrs: list[float] = list_of("numbers > 0", lambda v: is_number(v) and v > 0)


@dataclass(frozen=True)
class MobileNetV2(Recipe):
    strides: str = choice(*STRIDES)
    variants: list[str] = list_of(", ".join(VARIANTS), lambda v: v in VARIANTS)


@dataclass(frozen=True)
class ImageParams(Params):
    baseline: Baseline
    small_cnn: SmallCNN
    small_cnn_sweep: SmallCNNSweep
    mobilenetv2: MobileNetV2


Variants = dict[str, tuple[Recipe, str, dict]]  # name -> recipe, network, settings of the network


def list_shares(params: ImageParams) -> Variants:
    study = params.baseline
    return {f"{percent:g}": (replace(study, percent=percent), "baseline_cnn", {}) for percent in study.percents}


def list_norms(params: ImageParams) -> Variants:
    study = params.small_cnn
    return {norm: (study, "small_cnn", {"norm": norm}) for norm in study.norms}


def list_cells(params: ImageParams) -> Variants:
    study = params.small_cnn_sweep
    recipe = replace(params.small_cnn, seeds=study.seeds, epochs=study.epochs, percent=study.percent)
    return {
        f"{norm}-{size}-{lr:g}": (replace(recipe, batch_size=size, lr=lr), "small_cnn", {"norm": norm})
        for norm, size, lr in product(recipe.norms, study.batch_sizes, study.lrs)
    }


def list_modifications(params: ImageParams) -> Variants:
    study = params.mobilenetv2
    return {name: (study, "mobilenetv2", {"variant": name, "strides": study.strides}) for name in study.variants}


STUDIES = {
    "baseline": list_shares,
    "small_cnn": list_norms,
    "small_cnn_sweep": list_cells,
    "mobilenetv2": list_modifications,
}


def list_variants(params: ImageParams, study: str) -> Variants:
    """What a study trains, by the names of its variants; raises ParamsError for an unknown study."""
    if study not in STUDIES:
        raise ParamsError(f"'{study}' is no study of images; it must be one of {', '.join(STUDIES)}")
    return STUDIES[study](params)


def find_variant(params: ImageParams, study: str, variant: str) -> tuple[Recipe, str, dict]:
    """Recipe, network and its settings; raises ParamsError for an unknown variant."""
    variants = list_variants(params, study)
    if variant not in variants:
        raise ParamsError(f"'{variant}' is no variant of {study}; params.yaml lists {', '.join(variants)}")
    return variants[variant]
