"""Checkpoints: dicts of tensors and plain values."""

from pathlib import Path

import torch

from stages.core.files import StageError, write


def save_checkpoint(path: str | Path, contents: dict) -> None:
    """A dict of tensors and plain values, loadable with `torch.load(path, weights_only=True)`."""
    write(path, lambda temporary: torch.save(contents, temporary))


def load_checkpoint(path: str | Path) -> dict:
    """Raises StageError if there is no checkpoint."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise StageError(f"{path} does not exist; run `dvc repro`, or `dvc pull` if a remote has it") from None
