import numpy as np
import pytest

from stages.measure.misclassified import accuracy_per_class, contested_images, hardest_images, summarize_errors
from stages.training.predictions import Predictions

LABELS = np.arange(10)
RIGHT = np.eye(10, dtype=np.float32)


def with_wrong(*wrong):
    """Two seeds that are sure of the truth but for images seed -> {image: probability of the truth}."""
    probabilities = np.stack([RIGHT, RIGHT])
    for seed, images in enumerate(wrong):
        for image, truth in images.items():
            probabilities[seed, image] = 0
            probabilities[seed, image, [image, (image + 1) % 10]] = truth, 1 - truth
    return Predictions(np.arange(2), LABELS, probabilities)


@pytest.fixture
def predictions():
    """Images 3 and 4 are wrong in every model, 5 divides the configurations, 6 is wrong in one seed of one."""
    return {
        "frn-noclip": with_wrong({3: 0.4, 4: 0.1, 5: 0.2}, {3: 0.4, 4: 0.1, 5: 0.2}),
        "frn-clip": with_wrong({3: 0.3, 4: 0.2, 6: 0.0}, {3: 0.3, 4: 0.2}),
    }


def test_the_hardest_images_are_wrong_everywhere_and_the_surest_errors_come_first(predictions):
    assert hardest_images(predictions).tolist() == [4, 3]


def test_contested_images_divide_whole_configurations(predictions):
    assert contested_images(predictions).tolist() == [5]


def test_accuracy_per_class_is_the_mean_over_seeds(predictions):
    table = accuracy_per_class(predictions).set_index(["configuration", "class"])["accuracy"]
    assert table["frn-clip", "frog"] == 0.5 and table["frn-noclip", "frog"] == 1 and table["frn-clip", "cat"] == 0


def test_the_summary(predictions):
    summary = summarize_errors(predictions)
    assert summary["always_right"] == 0.6 and summary["always_wrong"] == 0.2 and summary["contested"] == 0.1
    assert summary["hardest_class_frn-clip"] == "cat" and summary["hardest_class_accuracy_max"] == 0
