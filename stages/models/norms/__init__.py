"""Norms of a head, a file each, found by the name of the file: it may then stand in `norms` of params.yaml.

A file defines `make_layer(units, placement, frn_learned_eps)`, the torch module from (N, units), a pooled vector of
each image, or with placement spatial (N, units, H, W), to the same shape, and `NORM`, all that is known of the norm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from torch import nn

from stages.core.files import StageError
from stages.core.params import NORMS

LayerFactory = Callable[[int, str, float], nn.Module]


def say_nothing(placement: str) -> str:
    return ""


@dataclass(frozen=True)
class Norm:
    """One norm: as a reader sees it, its layer, and what only it adds to the report.

    The sentences depend on the placement: a remark beside the equation, in typst; and, for a norm that was worse than
    the others in every seed, what may be behind that, and what has to be said before it is advised against.
    """

    label: str
    color: str  # as matplotlib has it; of Okabe and Ito's palette, distinguishable with every common colour vision
    make_layer: LayerFactory
    equation: str  # of x, without scale and shift, in typst's mathematics, where words go in quotes
    statistics: str  # what it is computed over, in words
    reference: str | None  # a key of stages/document.bib
    remark: Callable[[str], str] = say_nothing
    explain_distance: Callable[[str], str] = say_nothing
    qualify_distance: Callable[[str], str] = say_nothing


def load_norm(name: str) -> Norm:
    """The norm of that name; raises ValueError for any other, and StageError where its file does not define one."""
    if name not in NORMS:
        raise ValueError(f"norm is {name!r}; it must be one of {', '.join(NORMS)}")
    try:
        return import_module(f"{__name__}.{name}").NORM
    except (AttributeError, ImportError, NameError, SyntaxError, TypeError) as error:
        raise StageError(
            f"stages/models/norms/{name}.py is no norm ({error}); it defines make_layer and NORM, as groupnorm.py does"
        ) from None


class OverChannels:
    """Before a norm of torch's over the last dimension: has it act on the channels of (N, C) or (N, C, H, W)."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)
