"""The small network without pretraining that transfer learning is compared with."""

from collections import OrderedDict

from torch import nn

from stages.core.choices import CLASSES
from stages.models.initialization import initialize_like_torch


def make_baseline_cnn(*, seed: int) -> nn.Sequential:
    """Two 3x3 convolutions with max-pooling and two dense layers, from random weights: (N, 3, 32, 32) -> (N, 10).

    Initialised from `seed` with torch's default scheme; 545,098 parameters, of which 524,416 are in fc1.
    """
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 32, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(64 * 8 * 8, 128),
            relu3=nn.ReLU(),
            fc2=nn.Linear(128, CLASSES),
        )
    )
    initialize_like_torch(model, seed)
    return model
