"""Loss and accuracy of a model on stored features."""

import torch
import torch.nn.functional as F

from stages.lib.transfer import TransferModel

BATCH_SIZE = 128


@torch.no_grad()
def predict(model: TransferModel, features: torch.Tensor) -> torch.Tensor:
    """The most likely class of every sample, int64 (N,), on the CPU; the model must be in eval mode."""
    device = next(model.parameters()).device
    return torch.cat([model(x.to(device)).argmax(1).cpu() for x in features.split(BATCH_SIZE)])


@torch.no_grad()
def evaluate(model: TransferModel, features: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Mean cross-entropy (nats) and accuracy in [0, 1] over all samples, in eval mode; the model's mode is restored."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    loss, correct = (
        torch.zeros((), dtype=torch.float64, device=device),
        torch.zeros((), dtype=torch.int64, device=device),
    )
    for x, y in zip(features.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True):
        logits, y = model(x.to(device)), y.to(device)
        loss += F.cross_entropy(logits, y, reduction="sum")
        correct += (logits.argmax(1) == y).sum()
    model.train(was_training)
    return {"loss": loss.item() / len(labels), "accuracy": correct.item() / len(labels)}
