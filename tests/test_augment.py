import numpy as np
import torch
import torchvision.transforms.functional as tv

from stages.data.augmentation import PADDING, crop_and_flip, draw_augmentation


def test_the_same_images_as_torchvision_one_by_one(rng):
    images = torch.from_numpy(rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8))
    draws = torch.from_numpy(draw_augmentation(64, seed=1, view=2))
    found = crop_and_flip(images, draws)
    for image, (top, left, flip), got in zip(images, draws.tolist(), found, strict=True):
        expected = tv.crop(tv.pad(image.permute(2, 0, 1), PADDING), top, left, 32, 32)
        expected = tv.hflip(expected) if flip else expected
        assert torch.equal(got, expected.permute(1, 2, 0))


def test_draws_depend_on_seed_view_and_image_alone():
    draws = draw_augmentation(1000, seed=0, view=0)
    np.testing.assert_array_equal(draw_augmentation(1000, seed=0, view=0), draws)
    np.testing.assert_array_equal(draw_augmentation(500, seed=0, view=0), draws[:500])
    assert not np.array_equal(draw_augmentation(1000, seed=0, view=1), draws)
    assert not np.array_equal(draw_augmentation(1000, seed=1, view=0), draws)


def test_every_offset_and_both_flips_occur_equally_often():
    draws = draw_augmentation(90_000, seed=0, view=0)
    for column, values in enumerate((9, 9, 2)):
        shares = np.bincount(draws[:, column], minlength=values) / len(draws)
        np.testing.assert_allclose(shares, 1 / values, atol=0.006)
