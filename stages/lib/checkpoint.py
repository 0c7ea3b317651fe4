"""Checkpoints: dicts of tensors and plain values, from which a trained model can be rebuilt."""

from pathlib import Path

import torch

from stages.lib.backbone import StateDict
from stages.lib.files import StageError, write
from stages.lib.transfer import TransferModel, make_model_from_settings


def save_checkpoint(path: str | Path, contents: dict) -> None:
    """A dict of tensors and plain values, loadable with `torch.load(path, weights_only=True)`."""
    write(path, lambda temporary: torch.save(contents, temporary))


def load_checkpoint(path: str | Path) -> dict:
    """Raises StageError if there is no checkpoint."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise StageError(f"{path} does not exist; run `dvc repro`, or `dvc pull` if a remote has it") from None


def rebuild_model(checkpoint: dict, backbone: StateDict, product_dtype: torch.dtype = torch.float32) -> TransferModel:
    """The trained model of a checkpoint, in eval mode."""
    model = make_model_from_settings(checkpoint["params"], backbone, product_dtype)
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()
