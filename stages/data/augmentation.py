"""Padded crop and horizontal flip at 32 x 32, drawn per image and view, applied to whole batches."""

import numpy as np
import torch
import torch.nn.functional as F

PADDING = 4  # pixels on each side before the crop


def draw_augmentation(count: int, seed: int, view: int) -> np.ndarray:
    """Row offset, column offset (0 to 8) and flip (0 or 1) of `count` images: int64 (count, 3).

    The draw of image i in a view depends on the seed, the view and i alone, not on the split or the batch.
    """
    rng = np.random.default_rng([seed, view])
    return rng.integers(0, [2 * PADDING + 1, 2 * PADDING + 1, 2], size=(count, 3))


def crop_and_flip(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Shift each image inside a black border and mirror it: (N, H, W, 3) and (N, 3) -> (N, H, W, 3), same dtype.

    The same images as torchvision's RandomCrop(H, padding=4) followed by a horizontal flip, without a loop over images.
    """
    n, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    top, left, flip = (draws[:, k].to(images.device)[:, None] for k in range(3))
    rows = torch.arange(height, device=images.device) + top
    columns = torch.arange(width, device=images.device)
    columns = torch.where(flip == 1, width - 1 - columns, columns) + left
    index = torch.arange(n, device=images.device)[:, None, None]
    return padded[index, rows[:, :, None], columns[:, None, :]]
