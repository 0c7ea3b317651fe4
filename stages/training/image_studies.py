"""The studies that train from images: which networks they compare, and by which recipe."""

from dataclasses import fields
from itertools import product

from stages.core.params import Params, ParamsError, Recipe

Variants = dict[str, tuple[Recipe, str, dict]]  # name -> recipe, network, settings of the network


def take_recipe(study: Recipe, **changes) -> Recipe:
    """The recipe in a study's section, without what the study compares: a variant does not depend on the others."""
    kept = {field.name for field in fields(Recipe)} - changes.keys()
    return Recipe(**{name: getattr(study, name) for name in kept}, **changes)


def list_shares(params: Params) -> Variants:
    study = params.baseline
    return {f"{percent:g}": (take_recipe(study, percent=percent), "baseline_cnn", {}) for percent in study.percents}


def list_norms(params: Params) -> Variants:
    study = params.small_cnn
    return {norm: (take_recipe(study), "small_cnn", {"norm": norm}) for norm in study.norms}


def list_cells(params: Params) -> Variants:
    base, study = params.small_cnn, params.small_cnn_sweep
    own = {"seeds": study.seeds, "epochs": study.epochs, "percent": study.percent}
    return {
        f"{norm}-{size}-{lr:g}": (take_recipe(base, batch_size=size, lr=lr, **own), "small_cnn", {"norm": norm})
        for norm, size, lr in product(base.norms, study.batch_sizes, study.lrs)
    }


def list_modifications(params: Params) -> Variants:
    study = params.mobilenetv2
    recipe = take_recipe(study)
    return {name: (recipe, "mobilenetv2", {"variant": name, "strides": study.strides}) for name in study.variants}


STUDIES = {
    "baseline": list_shares,
    "small_cnn": list_norms,
    "small_cnn_sweep": list_cells,
    "mobilenetv2": list_modifications,
}


def list_variants(params: Params, study: str) -> Variants:
    """What a study trains, by the names of its variants; raises ParamsError for an unknown study."""
    if study not in STUDIES:
        raise ParamsError(f"'{study}' is no study of images; it must be one of {', '.join(STUDIES)}")
    return STUDIES[study](params)


def find_variant(params: Params, study: str, variant: str) -> tuple[Recipe, str, dict]:
    """Recipe, network and its settings; raises ParamsError for an unknown variant."""
    variants = list_variants(params, study)
    if variant not in variants:
        raise ParamsError(f"'{variant}' is no variant of {study}; params.yaml lists {', '.join(variants)}")
    return variants[variant]
