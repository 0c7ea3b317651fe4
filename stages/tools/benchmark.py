"""Cost of the study against a plain fine-tuning loop, both measured here on a slice and scaled by image counts.

The plain loop is what courses write: PIL transforms in a DataLoader, the whole network forward at every step, float32,
`features.18` and the head trained. Run it with `make bench`, after `dvc repro prepare backbone`.
"""

import math
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stages.core.device import COMPILE_FROM, choose_device, choose_dtype
from stages.core.files import SCRATCH, read_json, write_json
from stages.core.params import Params, load_params
from stages.core.progress import Progress
from stages.data.cifar10 import CIFAR10Data
from stages.data.feature_cache import FeatureCache, TrainingData
from stages.data.feature_extraction import BATCH_SIZE, Part, make_extractor, write_parts
from stages.models.configurations import list_keys
from stages.models.heads import make_head
from stages.models.transfer_model import make_model
from stages.models.trunk import LAST, Trunk, make_features
from stages.training.from_features import make_optimizer, make_recipe
from stages.training.loop import Run, advance, side_by_side

SLICE = 4096  # images through the cached path
PLAIN_SLICE = 512  # images through the plain loop
TRAINING_ROWS = 16_384  # the slice's features, repeated, so that an epoch is long enough to time


class PlainDataset(Dataset):
    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, k):
        return self.transform(Image.fromarray(self.images[k])), int(self.labels[k])


def measure_plain(data: CIFAR10Data, about: dict, batch_size: int) -> tuple[float, float]:
    """Images per second of training and of validation."""
    last = [
        transforms.Resize(about["image_size"]),
        transforms.ToTensor(),
        transforms.Normalize(about["mean"], about["std"]),
    ]
    augmentation = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    features = make_features(about["padding"])
    features.load_state_dict(torch.load("models/backbone.pt", weights_only=True))
    features.requires_grad_(False)[LAST].requires_grad_(True)
    head = make_head("batchnorm", 1280, seed=0)
    model = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    optimizer = torch.optim.Adam([{"params": features[LAST].parameters(), "lr": 1e-5}, {"params": head.parameters()}])

    def loader(part, transform):
        images, labels = data.images(part)[:PLAIN_SLICE], data.labels(part)[:PLAIN_SLICE]
        return DataLoader(PlainDataset(images, labels, transform), batch_size, shuffle=part == "train")

    features.eval()
    started = time.perf_counter()
    for x, y in loader("train", transforms.Compose(augmentation + last)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    trained = time.perf_counter()
    with torch.no_grad():
        for x, _ in loader("val", transforms.Compose(last)):
            model(x)
    return PLAIN_SLICE / (trained - started), PLAIN_SLICE / (time.perf_counter() - trained)


def measure_cached(data: CIFAR10Data, about: dict, params: Params) -> dict[str, float]:
    """Seconds to compile, images per second of extraction, seconds per image of an epoch of training and validation."""
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    state = torch.load("models/backbone.pt", weights_only=True)
    trunk = Trunk(state, about["image_size"], about["mean"], about["std"], about["padding"])
    started = time.perf_counter()
    extractor = make_extractor(trunk, dtype, device, COMPILE_FROM)
    compiled = time.perf_counter()
    SCRATCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        labels = data.labels("train")[:SLICE]
        parts = [Part("train_view0", data.images("train")[:SLICE], None, {"train": labels})]
        write_parts(parts, lambda: extractor, about["trunk_output"], Path(folder), BATCH_SIZE[device.type])
        extracted = time.perf_counter()
        write_json(Path(folder) / "about.json", about)
        cache = FeatureCache(folder)
        repeats = TRAINING_ROWS // SLICE
        features, labels = cache.features("train_view0").repeat(repeats, 1, 1, 1), cache.labels("train").repeat(repeats)
        data = TrainingData([features], labels, features[:SLICE], labels[:SLICE])
        recipe = make_recipe(params.train, cache, "batchnorm", clip=None)
    runs = [
        Run(seed, model, make_optimizer(model, recipe.head_lr, recipe.block_lr))
        for seed in params.seeds
        for model in [make_model(state, recipe, seed, dtype).to(device)]
    ]
    next_epoch = partial(advance, data=data, batch_size=recipe.batch_size, threshold=None, on_step=lambda: None)
    side_by_side(runs, 1, next_epoch, device, Progress("warm-up", 0))
    warm = time.perf_counter()
    side_by_side(runs, 2, next_epoch, device, Progress("training", 0))
    seconds = time.perf_counter() - warm
    return {
        "compile": compiled - started,
        "extraction": SLICE / (extracted - compiled),
        "epoch_per_image": seconds / (len(runs) * TRAINING_ROWS),
    }


def main() -> None:
    params, about, data = load_params(), read_json("models/backbone.json"), CIFAR10Data.load()
    epochs = len(list_keys(params.norms)) * len(params.seeds) * params.train.epochs
    train, val = len(data.split["train"]), len(data.split["val"])
    forwards = (
        params.features.views * train + min(params.features.train_eval_images, train) + val + len(data.split["test"])
    )

    cached = measure_cached(data, about, params)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    train_speed, val_speed = measure_plain(data, about, params.train.batch_size)
    plain_hours = epochs * (train / train_speed + val / val_speed) / 3600
    study_hours = (
        cached["compile"] + forwards / cached["extraction"] + epochs * train * cached["epoch_per_image"]
    ) / 3600
    disk = forwards * 2 * math.prod(about["trunk_output"]) / 1e9

    print(f"{about['image_size']} px, {epochs} epochs of {train:,} + {val:,} images, {torch.get_num_threads()} cores")
    print(
        f"plain loop   {train_speed:8.1f} img/s training, {val_speed:8.1f} img/s validation: {plain_hours:6.2f} hours"
    )
    print(
        f"this study   {cached['extraction']:8.1f} img/s extraction once, "
        f"{1 / cached['epoch_per_image']:8.1f} img/s training with validation: {study_hours:6.2f} hours"
    )
    print(f"ratio        {plain_hours / study_hours:8.1f}")
    print(f"peak memory  {memory:8.2f} GB, features on disk {disk:.2f} GB")


if __name__ == "__main__":
    main()
