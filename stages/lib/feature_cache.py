"""The trunk's outputs, computed once per augmented view and stored as memory-mappable float16 files.

A part is one file `<part>.npy`, shape (N, H, W, 320): `train_view0`, `train_view1`, ..., and without augmentation
`train_eval`, `val` and `test`. `<part>_labels.npy` (the views share `train_labels.npy`) are uint8 (N,).
"""

from pathlib import Path

import numpy as np
import torch

from stages.lib.files import StageError


class FeatureCache:
    """Read access to the files; arrays are memory-mapped, so that memory stays small whatever the cache holds."""

    def __init__(self, folder: str | Path = "data/features"):
        self.folder = Path(folder)
        self.views = len(list(self.folder.glob("train_view*.npy")))
        if not self.views:
            raise StageError(
                f"{folder} holds no features; run `dvc repro features`, or `dvc pull` if a remote has them"
            )

    def features(self, part: str) -> torch.Tensor:
        """float16 (N, H, W, 320) on the CPU, backed by the file."""
        return torch.from_numpy(np.load(self.folder / f"{part}.npy", mmap_mode="c"))

    def labels(self, part: str) -> torch.Tensor:
        """int64 (N,); the part `train` stands for every view."""
        return torch.from_numpy(np.load(self.folder / f"{part}_labels.npy").astype(np.int64))
