"""Logits of networks on stored features or images, and the loss and accuracy that these show."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

BATCH_SIZE = 128


@torch.no_grad()
def predict_logits(models: Sequence[nn.Module], inputs: torch.Tensor) -> list[torch.Tensor]:
    """Each model's logits, float32 (N, classes) on the CPU, in eval mode; the inputs are read once for all of them."""
    device, were_training = next(models[0].parameters()).device, [model.training for model in models]
    for model in models:
        model.eval()
    batches = [[model(x).cpu() for model in models] for x in (batch.to(device) for batch in inputs.split(BATCH_SIZE))]
    for model, was_training in zip(models, were_training, strict=True):
        model.train(was_training)
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def score(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Mean cross-entropy (nats) and accuracy in [0, 1] over all samples of logits (N, classes)."""
    batches = zip(logits.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)
    loss = sum(F.cross_entropy(x, y, reduction="sum").double() for x, y in batches)
    return {"loss": loss.item() / len(labels), "accuracy": (logits.argmax(1) == labels).sum().item() / len(labels)}


def evaluate(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Loss and accuracy of a model in eval mode, as `score` has them; the model's mode is restored."""
    (logits,) = predict_logits([model], inputs)
    return score(logits, labels.cpu())
