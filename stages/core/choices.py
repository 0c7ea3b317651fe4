"""Names that params.yaml may give and that are no setting's own: without torch, since the schema is checked first."""

LAST = 18  # features.18 of MobileNetV2: the 1x1 convolution that always trains

PLACEMENTS = ("vector", "spatial")  # of the norm in a head
SMALL_CNN_NORMS = ("batchnorm", "groupnorm", "layernorm")

# How a reader should see them.
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD with Nesterov momentum"}
SCHEDULES = {
    "constant": "at a constant learning rate of {}",
    "one_cycle": "under OneCycleLR with a peak learning rate of {}",
    "cosine": "with a learning rate that falls from {} along a cosine",
    "step": "with a learning rate of {}, divided by 10 after each third",
}

# Strides of MobileNetV2's stem and of the first block of each stage, by how many times smaller the last map is.
STRIDES = {
    "reduce_32": (2, 1, 2, 2, 2, 1, 2, 1),  # the paper's, for 224 pixels (7x7 at the end): 1x1 at 32 pixels
    "reduce_16": (1, 1, 2, 2, 2, 1, 2, 1),  # stem at stride 1: 2x2 at 32 pixels
    "reduce_8": (1, 1, 1, 2, 2, 1, 2, 1),  # stem and the stage of 24 channels at stride 1: 4x4 at 32 pixels
}

# Named modifications of MobileNetV2: what each changes of MobileNetV2Settings.
VARIANTS = {
    "plain": {},
    "expansion_2": {"expansion": 2},
    "expansion_10": {"expansion": 10},
    "kernel_5": {"kernel_size": 5},
    "leaky_relu": {"activation": "leaky_relu"},
    "silu": {"activation": "silu"},
    "hardswish": {"activation": "hardswish"},
    "hardsigmoid": {"activation": "hardsigmoid"},
    "squeeze_excitation": {"squeeze": 16},  # the reduction of Hu et al. 2018, arXiv 1709.01507
    "width_0.5": {"width": 0.5},
    "width_2": {"width": 2.0},
    "silu_expansion_10_se": {"activation": "silu", "expansion": 10, "squeeze": 16},
}
