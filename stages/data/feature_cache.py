"""The trunk's outputs, computed once per augmented view and stored as memory-mappable float16 files.

A part is one file `<part>.npy`, shape (N, H, W, C), where C is 320 unless more than features.18 is to train:
`train_view0`, `train_view1`, ..., and without augmentation `train_eval`, `val` and `test`. `<part>_labels.npy` (the
views share `train_labels.npy`) are uint8 (N,).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stages.core.device import move_if_it_fits
from stages.core.files import StageError, read_json


@dataclass(frozen=True)
class TrainingData:
    """Stored features, on the device where they fit there; epoch e (from 0) trains on view e mod V."""

    views: list[torch.Tensor]  # V tensors float16 (N, H, W, C): the same images in the same order, augmented anew
    labels: torch.Tensor  # int64 (N,)
    val_inputs: torch.Tensor  # float16 (M, H, W, C)
    val_labels: torch.Tensor  # int64 (M,)

    def view(self, epoch: int) -> torch.Tensor:
        """The training inputs of an epoch, from 0."""
        return self.views[epoch % len(self.views)]


class FeatureCache:
    """Read access to the files; arrays are memory-mapped, so that memory stays small whatever the cache holds."""

    def __init__(self, folder: str | Path = "data/features"):
        self.folder = Path(folder)
        try:
            self.about = read_json(self.folder / "about.json")
        except FileNotFoundError:
            raise StageError(
                f"{folder} holds no features; run `dvc repro features`, or `dvc pull` if a remote has them"
            ) from None

    @property
    def model_settings(self) -> dict:
        """What a model on these features must know of them."""
        return {name: self.about[name] for name in ("trainable_from", "padding")}

    def features(self, part: str) -> torch.Tensor:
        """float16 (N, H, W, C) on the CPU, backed by the file."""
        return torch.from_numpy(np.load(self.folder / f"{part}.npy", mmap_mode="c"))

    def labels(self, part: str) -> torch.Tensor:
        """int64 (N,); the part `train` stands for every view."""
        return torch.from_numpy(np.load(self.folder / f"{part}_labels.npy").astype(np.int64))

    def files(self) -> list[Path]:
        """Every file of the cache: whatever is trained on it depends on their bytes."""
        return sorted(self.folder.iterdir())

    def views(self, device: torch.device) -> list[torch.Tensor]:
        """Every training view of this folder, in their order, on the device where they fit there."""
        names = sorted((path.stem for path in self.folder.glob("train_view*.npy")), key=lambda name: int(name[10:]))
        return [move_if_it_fits(self.features(name), device) for name in names]

    def training_data(self, device: torch.device) -> TrainingData:
        """What trains and is selected by, on the device where it fits there."""
        validation = move_if_it_fits(self.features("val"), device)
        return TrainingData(self.views(device), self.labels("train"), validation, self.labels("val"))
