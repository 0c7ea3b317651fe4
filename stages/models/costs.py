"""What a network costs: parameters, multiply-adds and time per forward pass."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients within the block; the model's own mode again after it."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters; statistics of batch normalization are none."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_multiply_adds(model: nn.Module, batch: torch.Tensor) -> int:
    """Multiply-adds per image of a forward pass over `batch` (N, ...): those of convolutions and matrix products.

    Norms, activations, pooling and additions are not counted, as in the figures that papers give.
    """
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(batch)
    return counter.get_total_flops() // (2 * len(batch))


def measure_latency(model: nn.Module, batch: torch.Tensor, repeats: int = 30, warmup: int = 5) -> float:
    """Median seconds of a forward pass over `batch` on the CPU, with as many threads as torch is set to use."""
    seconds = []
    with evaluating(model):
        for _ in range(warmup + repeats):
            start = time.perf_counter()
            model(batch)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[warmup:])
