"""CIFAR-10 (Krizhevsky 2009) once it is prepared: its classes, a stratified and seeded split, its statistics.

In a notebook: `data = CIFAR10Data.load("data")`, then `data.images("val")`, and `draw_samples(data)` and
`draw_class_distribution(data)` of stages.reporting.plotting to see it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.core.files import write

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Arrays = dict[str, np.ndarray]


def stratified_take(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` random positions with the class shares of `labels` (largest remainders), sorted."""
    classes, sizes = np.unique(labels, return_counts=True)
    quotas = sizes * count / len(labels)
    takes = np.floor(quotas).astype(int)
    takes[np.argsort(takes - quotas, kind="stable")[: count - takes.sum()]] += 1
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:take] for label, take in zip(classes, takes, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def make_split(
    train_labels: np.ndarray, test_labels: np.ndarray, validation_fraction: float, seed: int, images: int | None
) -> Arrays:
    """Stratified, disjoint index arrays `train`, `val` (into the training set) and `test` (into the test set).

    `images` limits the study to that many training images and a fifth as many test images.
    """
    rng = np.random.default_rng(seed)
    pool = np.arange(len(train_labels)) if images is None else stratified_take(train_labels, images, rng)
    test = np.arange(len(test_labels)) if images is None else stratified_take(test_labels, images // 5, rng)
    held_out = stratified_take(train_labels[pool], round(len(pool) * validation_fraction), rng)
    return {"train": np.delete(pool, held_out), "val": pool[held_out], "test": test}


def compute_statistics(images: np.ndarray, labels: np.ndarray) -> dict:
    """Per-channel mean and standard deviation of pixels in [0, 1], and images per class; images (N, 32, 32, 3)."""
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(3)]).astype(float)
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    variance = counts @ values**2 / counts.sum(1) - mean**2
    return {
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "class_counts": dict(zip(CLASS_NAMES, np.bincount(labels, minlength=10).tolist(), strict=True)),
    }


def save_arrays(path: str | Path, arrays: Arrays) -> None:
    write(path, lambda p: np.savez(p, **arrays))


@dataclass(frozen=True)
class CIFAR10Data:
    """The prepared data: the verified arrays and the split; parts are train, val and test."""

    arrays: Arrays
    split: Arrays

    @classmethod
    def load(cls, folder: str | Path = "data") -> "CIFAR10Data":
        with np.load(Path(folder) / "cifar10.npz") as arrays, np.load(Path(folder) / "split.npz") as split:
            return cls(dict(arrays), dict(split))

    def images(self, part: str) -> np.ndarray:
        """uint8 (N, 32, 32, 3), in the order of the split."""
        return self._of("images", part)

    def labels(self, part: str) -> np.ndarray:
        """uint8 (N,), in the order of the split."""
        return self._of("labels", part)

    def _of(self, what: str, part: str) -> np.ndarray:
        return self.arrays[f"{'test' if part == 'test' else 'train'}_{what}"][self.split[part]]
