"""The variants that these side studies compare."""

from stages.core.params import Params, ParamsError

STUDIES = ("thresholds", "batch_sizes", "placements")


def list_variants(params: Params, study: str) -> dict[str, dict]:
    """What each variant of a study changes in the settings, by its name; raises ParamsError for an unknown study."""
    settings = params.variants
    if study == "thresholds":
        return {"none": {"clip": None}} | {f"{clip:g}": {"clip": clip} for clip in sorted(settings.thresholds)}
    if study == "batch_sizes":
        return {str(size): {"batch_size": size} for size in sorted(settings.batch_sizes)}
    if study == "placements":
        return {placement: {"placement": placement} for placement in settings.placements}
    raise ParamsError(f"'{study}' is no study of variants; it must be one of {', '.join(STUDIES)}")
