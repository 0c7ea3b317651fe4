"""CIFAR-10's images as training data: one tensor, augmented anew for each epoch, in batches and without PIL."""

from dataclasses import dataclass

import numpy as np
import torch

from stages.data.augmentation import crop_and_flip, draw_augmentation
from stages.data.cifar10 import CIFAR10Data
from stages.data.shares import choose_share


@dataclass(frozen=True)
class ImageData:
    """Images uint8 (N, 32, 32, 3) and labels int64 (N,), on the device that trains; see DataSource of training.loop."""

    images: torch.Tensor
    labels: torch.Tensor
    val_inputs: torch.Tensor
    val_labels: torch.Tensor
    augmentation_seed: int | None  # None: every epoch sees the images as they are

    def view(self, epoch: int) -> torch.Tensor:
        """All training images, cropped and flipped by draws that depend on the seed and the epoch alone."""
        if self.augmentation_seed is None:
            return self.images
        draws = draw_augmentation(len(self.images), self.augmentation_seed, epoch)
        return crop_and_flip(self.images, torch.from_numpy(draws))


def load_part(data: CIFAR10Data, part: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of a part on the device that trains, and labels."""
    images, labels = data.images(part), data.labels(part).astype(np.int64)
    return torch.from_numpy(images).to(device), torch.from_numpy(labels)


def load_image_data(
    data: CIFAR10Data, augmentation_seed: int | None, percent: float, device: torch.device
) -> ImageData:
    """The training part, or a stratified share of it that depends on its size alone, and the validation part."""
    images, labels = load_part(data, "train", device)
    chosen, validation = choose_share(labels, percent), load_part(data, "val", device)
    return ImageData(images[chosen.to(images.device)], labels[chosen], *validation, augmentation_seed)
