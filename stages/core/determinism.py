"""What it takes beside seeds to get the same bits again on a CUDA device."""

import torch


def make_convolutions_repeatable() -> None:
    """Have cuDNN choose among algorithms that add up in a fixed order: by default some gradients of weights do not."""
    torch.backends.cudnn.deterministic = True
