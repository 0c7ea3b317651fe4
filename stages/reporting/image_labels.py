"""How a reader should see the studies that train from images: their variants and recipes in words."""

from stages.core.params import Recipe
from stages.reporting.phrases import count

OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD with Nesterov momentum"}
SCHEDULES = {
    "constant": "at a constant learning rate of {}",
    "one_cycle": "under OneCycleLR with a peak learning rate of {}",
    "cosine": "with a learning rate that falls from {} along a cosine",
    "step": "with a learning rate of {}, divided by 10 after each third",
}
LABELS = {  # of variants whose names with spaces would not do
    "batchnorm": "BatchNorm",
    "layernorm": "LayerNorm",
    "groupnorm": "GroupNorm",
    "leaky_relu": "LeakyReLU",
    "silu": "SiLU",
    "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid",
    "gelu": "GELU",
    "width_half": "width 0.5",
    "width_double": "width 2",
    "squeeze_excitation": "squeeze-and-excitation",
    "silu_expansion_10_se": "SiLU with expansion 10 and squeeze-and-excitation",
}


def name_variant(name: str) -> str:
    """`expansion 10` for expansion_10, and what LABELS says of names that need more than that."""
    return LABELS.get(name, name.replace("_", " "))


def describe_recipe(recipe: Recipe) -> str:
    """`12 epochs of Adam under OneCycleLR with a peak learning rate of 0.01, batches of 64, 1 seed`."""
    schedule = SCHEDULES[recipe.schedule].format(f"{recipe.lr:g}")
    share = "" if recipe.percent == 100 else f", {recipe.percent:g}% of the training images"
    return (
        f"{count(recipe.epochs, 'epoch')} of {OPTIMIZERS[recipe.optimizer]} {schedule}, "
        f"batches of {recipe.batch_size}{share}, {count(len(recipe.seeds), 'seed')}"
    )
