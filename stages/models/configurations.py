"""Configurations of the study, a norm with or without clipping: their names in files, and as a reader sees them."""

from collections.abc import Iterable

from stages.core.params import NORMS, ParamsError
from stages.models.norms import load_norm

MODES = {"noclip": "no clipping", "clip": "clipped"}


def list_keys(norms: Iterable[str]) -> list[str]:
    """The configurations, such as batchnorm-clip, in the order of every table and figure."""
    return [f"{norm}-{mode}" for norm in norms for mode in MODES]


def make_key(norm: str, mode: str) -> str:
    """The name of a configuration in stages and files; raises ParamsError for an unknown one."""
    if norm not in NORMS or mode not in MODES:
        raise ParamsError(
            f"'{norm} {mode}' is no configuration: the norm is one of {', '.join(NORMS)}, "
            f"the mode one of {', '.join(MODES)}"
        )
    return f"{norm}-{mode}"


def split_key(key: str) -> tuple[str, str]:
    """The norm and the mode of a configuration."""
    norm, mode = key.split("-")
    return norm, mode


def label_of(norm: str) -> str:
    """A norm as a reader should see it: `FRN`."""
    return load_norm(norm).label


def color_of(norm: str) -> str:
    """A norm's colour in every figure."""
    return load_norm(norm).color


def name_of(key: str) -> str:
    """A configuration as a reader should see it: `FRN, clipped`."""
    norm, mode = split_key(key)
    return f"{label_of(norm)}, {MODES[mode]}"
