"""The parameters of these side studies, and the variants that they compare."""

from dataclasses import dataclass

from stages.lib.heads import PLACEMENTS
from stages.lib.params import Params, ParamsError, integer, is_int, is_number, list_of, number

STUDIES = ("thresholds", "batch_sizes", "placements")


@dataclass(frozen=True)
class Variants:
    seeds: list[int] = list_of("integers >= 0", lambda v: is_int(v) and v >= 0)
    epochs: int = integer(1)
    percent: float = number("in (0, 100]", lambda v: 0 < v <= 100)
    thresholds: list[float] = list_of("numbers > 0", lambda v: is_number(v) and v > 0)
    batch_sizes: list[int] = list_of("integers >= 2", lambda v: is_int(v) and v >= 2)
    placements: list[str] = list_of(", ".join(PLACEMENTS), lambda v: v in PLACEMENTS)


@dataclass(frozen=True)
class VariantsParams(Params):
    variants: Variants


def list_variants(params: VariantsParams, study: str) -> dict[str, dict]:
    """What each variant of a study changes in the settings, by its name; raises ParamsError for an unknown study."""
    settings = params.variants
    if study == "thresholds":
        return {"none": {"clip": None}} | {f"{clip:g}": {"clip": clip} for clip in sorted(settings.thresholds)}
    if study == "batch_sizes":
        return {str(size): {"batch_size": size} for size in sorted(settings.batch_sizes)}
    if study == "placements":
        return {placement: {"placement": placement} for placement in settings.placements}
    raise ParamsError(f"'{study}' is no study of variants; it must be one of {', '.join(STUDIES)}")
