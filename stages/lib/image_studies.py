"""The studies that train from images: which networks they compare, and by which recipe."""

from dataclasses import dataclass, replace

from stages.lib.image_training import Recipe
from stages.lib.mobilenetv2 import STRIDES, VARIANTS
from stages.lib.params import Params, ParamsError, choice, list_of
from stages.lib.small_cnn import NORMS


@dataclass(frozen=True)
class Baseline(Recipe):
    percents: list[float] = list_of("numbers in (0, 100]", lambda v: isinstance(v, (int, float)) and 0 < v <= 100)


@dataclass(frozen=True)
class SmallCNN(Recipe):
    norms: list[str] = list_of(", ".join(NORMS), lambda v: v in NORMS)


@dataclass(frozen=True)
class MobileNetV2(Recipe):
    strides: str = choice(*STRIDES)
    variants: list[str] = list_of(", ".join(VARIANTS), lambda v: v in VARIANTS)


@dataclass(frozen=True)
class ImageParams(Params):
    baseline: Baseline
    small_cnn: SmallCNN
    mobilenetv2: MobileNetV2


# study -> (section) -> variant -> (recipe, network, settings of the network)
STUDIES = {
    "baseline": lambda s: {f"{p:g}": (replace(s, percent=p), "baseline_cnn", {}) for p in s.percents},
    "small_cnn": lambda s: {norm: (s, "small_cnn", {"norm": norm}) for norm in s.norms},
    "mobilenetv2": lambda s: {v: (s, "mobilenetv2", {"variant": v, "strides": s.strides}) for v in s.variants},
}


def list_variants(params: ImageParams, study: str) -> dict[str, tuple[Recipe, str, dict]]:
    """What a study trains, by the names of its variants; raises ParamsError for an unknown study."""
    if study not in STUDIES:
        raise ParamsError(f"'{study}' is no study of images; it must be one of {', '.join(STUDIES)}")
    return STUDIES[study](getattr(params, study))


def find_variant(params: ImageParams, study: str, variant: str) -> tuple[Recipe, str, dict]:
    """Recipe, network and its settings; raises ParamsError for an unknown variant."""
    variants = list_variants(params, study)
    if variant not in variants:
        raise ParamsError(f"'{variant}' is no variant of {study}; params.yaml lists {', '.join(variants)}")
    return variants[variant]
