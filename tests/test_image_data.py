import numpy as np
import pytest
import torch

from stages.data.augmentation import draw_augmentation
from stages.data.cifar10 import CIFAR10Data
from stages.data.images import load_image_data

CPU = torch.device("cpu")


@pytest.fixture
def data(rng):
    """Class k has 10 (k + 1) training images."""
    labels = np.repeat(np.arange(10), 10 * np.arange(1, 11)).astype(np.uint8)
    images = rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    arrays = {"train_images": images, "train_labels": labels, "test_images": images[:20], "test_labels": labels[:20]}
    order = rng.permutation(len(labels))
    return CIFAR10Data(arrays, {"train": order[:500], "val": order[500:], "test": np.arange(20)})


def test_an_epochs_view_is_each_image_shifted_and_mirrored_by_its_draw(data):
    images = load_image_data(data, 3, 100, CPU)
    view, draws = images.view(2), draw_augmentation(500, 3, 2)
    for k in (0, 7, 499):
        top, left, flip = draws[k]
        padded = np.pad(images.images[k].numpy(), ((4, 4), (4, 4), (0, 0)))
        expected = padded[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(view[k], expected[:, ::-1] if flip else expected)
    assert torch.equal(view, images.view(2)) and not torch.equal(view, images.view(1))


def test_without_augmentation_every_epoch_sees_the_stored_images(data):
    images = load_image_data(data, None, 100, CPU)
    np.testing.assert_array_equal(images.view(5), data.images("train"))
    np.testing.assert_array_equal(images.val_inputs, data.images("val"))
    np.testing.assert_array_equal(images.val_labels, data.labels("val"))


def test_a_share_of_the_images_keeps_the_shares_of_the_classes(data):
    whole, share = load_image_data(data, None, 100, CPU), load_image_data(data, None, 20, CPU)
    assert len(share.labels) == len(share.images) == 100
    counts = torch.bincount(whole.labels, minlength=10) / 5
    assert (torch.bincount(share.labels, minlength=10) - counts).abs().max() < 1
    rows = {image.tobytes(): label for image, label in zip(whole.images.numpy(), whole.labels.tolist(), strict=True)}
    assert all(rows[i.tobytes()] == y for i, y in zip(share.images.numpy(), share.labels.tolist(), strict=True))
    assert torch.equal(load_image_data(data, 5, 20, CPU).labels, share.labels)
