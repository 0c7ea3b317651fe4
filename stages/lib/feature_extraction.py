"""Fill the feature cache (see feature_cache.py for its files): resumable, and within little memory."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tqdm

from stages.lib.augment import crop_and_flip, draw_augmentation
from stages.lib.cifar10 import CIFAR10Data, stratified_take
from stages.lib.device import COMPILE_FROM, compile_frozen
from stages.lib.files import StageError, write_json

BATCH_SIZE = {"cpu": 16, "cuda": 1024}  # measured: larger batches leave the CPU's caches
FREE_DISK_MARGIN = 1.05

Extract = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Part:
    """Images of one file of the cache, with their augmentation (None: none), and their labels."""

    name: str
    images: np.ndarray  # uint8 (N, 32, 32, 3)
    draws: np.ndarray | None  # int64 (N, 3)


def make_parts(
    data: CIFAR10Data, views: int, augmentation_seed: int, train_eval_images: int
) -> tuple[list[Part], dict]:
    """The parts to extract and the label array of each file `<name>_labels.npy`."""
    train, labels = data.images("train"), data.labels("train")
    count = len(data.arrays["train_images"])
    parts = []
    for view in range(views):
        draws = draw_augmentation(count, augmentation_seed, view)[data.split["train"]]
        parts.append(Part(f"train_view{view}", train, draws))
    chosen = stratified_take(labels, min(train_eval_images, len(labels)), np.random.default_rng(augmentation_seed))
    parts += [Part("train_eval", train[chosen], None), Part("val", data.images("val"), None)]
    parts.append(Part("test", data.images("test"), None))
    kept = {"train": labels, "train_eval": labels[chosen], "val": data.labels("val"), "test": data.labels("test")}
    return parts, kept


def require_disk(folder: Path, needed: int) -> None:
    """Announce the disk need in bytes; raises StageError before any work if `folder` has no room for it."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    print(f"features: {needed / 1e9:.2f} GB to write, {free / 1e9:.1f} GB free")
    if free < needed * FREE_DISK_MARGIN:
        raise StageError(
            f"{folder} needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
            "free some disk, or lower features.views or backbone.image_size in params.yaml"
        )


def make_extractor(trunk: torch.nn.Module, dtype: torch.dtype, device: torch.device, images: int) -> Extract:
    """A function uint8 (B, 32, 32, 3) -> float16 (B, H, W, 320), compiled on a CPU with many images to come."""
    trunk = trunk.to(device)
    batch = BATCH_SIZE[device.type]

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    if images >= COMPILE_FROM and device.type == "cpu":
        with torch.no_grad(), autocast():
            trunk = compile_frozen(trunk, torch.zeros(batch, 32, 32, 3, dtype=torch.uint8, device=device))

    def extract(pixels: torch.Tensor) -> torch.Tensor:
        missing = batch - len(pixels)  # always one shape: a second one would be compiled again, and round differently
        full = torch.cat([pixels, pixels[:1].expand(missing, -1, -1, -1)]) if missing else pixels
        with torch.no_grad(), autocast():
            return trunk(full.to(device))[: len(pixels)].half().cpu()

    return extract


def extract_part(part: Part, extract: Extract, path: Path, shape: tuple, batch: int, done: Callable) -> None:
    """Append batches to a .npy file until it is complete; what a killed run left there is kept."""
    row_bytes = 2 * int(np.prod(shape))
    header = {"descr": "<f2", "fortran_order": False, "shape": (len(part.images), *shape)}
    with open(path, "r+b" if path.exists() else "w+b") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        rows = max(os.path.getsize(path) - start, 0) // row_bytes
        rows = rows if rows == len(part.images) else rows // batch * batch
        file.truncate(start + rows * row_bytes)
        file.seek(0, os.SEEK_END)
        done(rows)
        for first in range(rows, len(part.images), batch):
            pixels = torch.from_numpy(part.images[first : first + batch])
            if part.draws is not None:
                pixels = crop_and_flip(pixels, torch.from_numpy(part.draws[first : first + batch]))
            file.write(extract(pixels).numpy().tobytes())
            done(len(pixels))


def write_cache(parts: list[Part], labels: dict, make: Callable[[], Extract], shape: tuple, scratch: Path, batch: int):
    """Fill `scratch` with every part and label file; parts that are complete there already are not computed again."""
    total = sum(len(part.images) for part in parts)
    present = sum(path.stat().st_size for path in scratch.glob("*.npy")) if scratch.exists() else 0
    require_disk(scratch, max(total * 2 * int(np.prod(shape)) - present, 0))
    extract = make()
    with tqdm.tqdm(total=total, unit="img", desc="features", mininterval=1 if sys.stderr.isatty() else 20) as bar:
        for part in parts:
            bar.set_postfix_str(part.name)
            extract_part(part, extract, scratch / f"{part.name}.npy", shape, batch, bar.update)
    for name, values in labels.items():
        np.save(scratch / f"{name}_labels.npy", values)


def publish(scratch: Path, folder: Path, about: dict) -> None:
    """Move the finished scratch folder to its final name, replacing what was there."""
    write_json(scratch / "about.json", about)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(scratch, folder)
