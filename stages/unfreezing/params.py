"""The parameters of this study."""

from dataclasses import dataclass

from stages.lib.backbone import LAST
from stages.lib.params import NORMS, Params, ParamsError, choice, integer, is_int, list_of, number


@dataclass(frozen=True)
class Unfreezing:
    seeds: list[int] = list_of("integers >= 0", lambda v: is_int(v) and v >= 0)
    epochs: int = integer(1)
    percent: float = number("in (0, 100]", lambda v: 0 < v <= 100)
    views: int = integer(1)
    norm: str = choice(*NORMS)
    block_lr: float = number(">= 0", lambda v: v >= 0)
    trainable_from: list[int] = list_of(f"integers from 3 to {LAST}", lambda v: is_int(v) and 3 <= v <= LAST)
    embedded_images: int = integer(100)


@dataclass(frozen=True)
class UnfreezingParams(Params):
    unfreezing: Unfreezing


def parse_block(params: UnfreezingParams, text: str) -> int:
    """The first block that trains, from the command line; raises ParamsError unless params.yaml lists it."""
    listed = params.unfreezing.trainable_from
    if text not in map(str, listed):
        raise ParamsError(f"'{text}' is no block of this study; params.yaml lists {', '.join(map(str, listed))}")
    return int(text)
