"""Class probabilities of every test image, stored per configuration, and what classification errors they show."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.core.files import StageError
from stages.data.cifar10 import save_arrays


@dataclass(frozen=True)
class Predictions:
    """One configuration's probabilities, float32 (seeds, N, 10), of the test images in the order of the split."""

    seeds: np.ndarray  # int64 (seeds,)
    labels: np.ndarray  # int64 (N,)
    probabilities: np.ndarray

    def save(self, path: str | Path) -> None:
        save_arrays(path, vars(self))

    @classmethod
    def load(cls, path: str | Path) -> "Predictions":
        try:
            with np.load(path) as arrays:
                return cls(**arrays)
        except FileNotFoundError:
            raise StageError(f"{path} does not exist; run `dvc repro`, which makes it first") from None

    @property
    def predicted(self) -> np.ndarray:
        """The most likely class, int64 (seeds, N)."""
        return self.probabilities.argmax(2)

    @property
    def correct(self) -> np.ndarray:
        """bool (seeds, N)."""
        return self.predicted == self.labels

    def confusion(self) -> np.ndarray:
        """Share of each true class (row) that is given each class (column), over all seeds; (10, 10), rows sum to 1."""
        counts = np.zeros((10, 10))
        np.add.at(counts, (np.broadcast_to(self.labels, self.predicted.shape), self.predicted), 1)
        return counts / counts.sum(1, keepdims=True)


def load_predictions(keys: list[str], folder: str = "data/predictions") -> dict[str, Predictions]:
    return {key: Predictions.load(f"{folder}/{key}.npz") for key in keys}
