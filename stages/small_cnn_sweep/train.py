"""Train one cell of the sweep, for every seed: `python -m stages.small_cnn_sweep.train groupnorm-16-0.01`."""

from stages.core.device import take_device
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.small_cnn.network import make_small_cnn
from stages.small_cnn_sweep.cells import list_cells
from stages.training.from_images import take_recipe
from stages.training.image_variant import find_variant, train_variant


def main(params: Params, name: str) -> dict:
    base, study = params.small_cnn, params.small_cnn_sweep
    cell = find_variant(list_cells(params), name, "small_cnn_sweep")
    own = {"seeds": study.seeds, "epochs": study.epochs, "percent": study.percent}
    recipe = take_recipe(base, batch_size=cell.batch_size, lr=cell.lr, **own)
    settings = base.variants[cell.variant]
    return train_variant("small_cnn_sweep", name, make_small_cnn, settings, recipe, take_device(params))


if __name__ == "__main__":
    run_stage(main, "cell", timing="small_cnn_sweep/{}")
