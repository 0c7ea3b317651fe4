"""The frozen transfer model on shares of the training images, and how shares of stored features are measured."""

import numpy as np
import pytest
import torch

from stages.baseline.transfer import find_trained
from stages.core.files import StageError
from stages.data.cifar10 import stratified_take
from stages.data.feature_extraction import Part
from stages.data.shares import choose_share
from stages.models.transfer_model import activate_in_batches
from stages.unfreezing.features import sample_clean, shrink_part
from tests.synthetic import make_model


def test_a_frozen_network_is_pooled_batch_by_batch_as_torchvision_would(backbone_state):
    from torchvision.models import mobilenet_v2

    model = make_model(backbone_state, "none", seed=0).eval()
    block = mobilenet_v2().features[18].eval()
    block.load_state_dict(model.block.state_dict())
    x = torch.randn(130, 2, 3, 320, generator=torch.Generator().manual_seed(0)).half()
    with torch.no_grad():
        expected = block(x.float().permute(0, 3, 1, 2)).mean((2, 3))
    torch.testing.assert_close(activate_in_batches(model, x), expected)


def test_training_accuracy_is_measured_on_images_that_were_trained_on():
    labels = torch.arange(1000) % 10
    positions = torch.from_numpy(stratified_take(labels.numpy(), 200, np.random.default_rng(7)))
    trained = positions[find_trained(labels, labels[positions], 30, seed=7)]
    share = set(choose_share(labels, 30).tolist())
    assert set(trained.tolist()) == share & set(positions.tolist()) and 30 < len(trained) < 90
    assert find_trained(labels, labels[positions], 100, seed=7).all()
    with pytest.raises(AssertionError, match="not the sample"):
        find_trained(labels, labels[positions], 30, seed=8)


def test_a_share_without_a_measured_image_is_refused():
    labels = torch.zeros(1000, dtype=torch.int64)
    position = torch.from_numpy(stratified_take(labels.numpy(), 1, np.random.default_rng(0)))
    with pytest.raises(StageError, match=r"none of the 1 images .* 1% of .* raise features.train_eval_images"):
        find_trained(labels, labels[position], 1, seed=0)


def test_a_share_of_a_view_is_measured_on_its_own_images():
    labels = (np.arange(400) % 10).astype(np.uint8)
    images = np.broadcast_to(np.arange(400)[:, None, None, None], (400, 2, 2, 3))  # each image is its number
    view = shrink_part(Part("train_view0", images, np.zeros((400, 3), int), {"train": labels}), 50)
    sample = sample_clean(view, 50, 40, seed=0)
    numbers = sample.images[:, 0, 0, 0]
    assert len(numbers) == 20 and set(numbers) < set(view.images[:, 0, 0, 0]) and sample.draws is None
    assert (labels[numbers] == sample.labels["train_eval"]).all() and len(set(numbers)) == 20
