"""Configurations as a reader should see them."""

LABELS = {"batchnorm": "BatchNorm", "layernorm": "LayerNorm", "frn": "FRN", "noclip": "no clipping", "clip": "clipped"}


def split_key(key: str) -> tuple[str, str]:
    """The norm and the mode of a configuration."""
    norm, mode = key.split("-")
    return norm, mode


def name_of(key: str) -> str:
    """A configuration as a reader should see it: `FRN, clipped`."""
    return ", ".join(LABELS[part] for part in split_key(key))
