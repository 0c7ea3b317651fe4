"""What the sweep trains."""

from itertools import product
from typing import NamedTuple

from stages.core.params import Params


class Cell(NamedTuple):
    """A variant of the small CNN, a batch size and a learning rate."""

    variant: str
    batch_size: int
    lr: float


def list_cells(params: Params) -> dict[str, Cell]:
    """Every combination by its name, such as groupnorm-16-0.01."""
    study = params.small_cnn_sweep
    cells = [Cell(*values) for values in product(params.small_cnn.variants, study.batch_sizes, study.lrs)]
    return {f"{cell.variant}-{cell.batch_size}-{cell.lr:g}": cell for cell in cells}
