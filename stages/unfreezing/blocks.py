"""The blocks from which on this study trains."""

from stages.core.params import Params, ParamsError


def parse_block(params: Params, text: str) -> int:
    """The first block that trains, from the command line; raises ParamsError unless params.yaml lists it."""
    listed = params.unfreezing.trainable_from
    if text not in map(str, listed):
        raise ParamsError(f"'{text}' is no block of this study; params.yaml lists {', '.join(map(str, listed))}")
    return int(text)
