"""Fill a feature cache (see feature_cache.py for its files): resumable, and within little memory."""

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tqdm

from stages.core.device import COMPILE_FROM, choose_dtype, compile_frozen
from stages.core.files import StageError, read_json, replace_folder, write_json
from stages.core.states import kept_states
from stages.data.augmentation import crop_and_flip, draw_augmentation
from stages.data.cifar10 import CIFAR10Data, stratified_take
from stages.models.trunk import Trunk, standardize_like_imagenet

BATCH_SIZE = {"cpu": 16, "cuda": 1024, "mps": 256}  # measured, but for mps: larger batches leave the CPU's caches
FREE_DISK_MARGIN = 1.05
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
INPUTS = ["data/cifar10.npz", "data/split.npz", "data/stats.json", "models/backbone.pt", "models/backbone.json"]

Extract = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Part:
    """Images of one file of the cache, with their augmentation (None: none), and their labels."""

    name: str
    images: np.ndarray  # uint8 (N, 32, 32, 3)
    draws: np.ndarray | None  # int64 (N, 3)

    labels: dict[str, np.ndarray]  # uint8 (N,), by the name of their file


def make_view(data: CIFAR10Data, view: int, augmentation_seed: int) -> Part:
    """All training images, augmented by the draws of one view."""
    draws = draw_augmentation(len(data.arrays["train_images"]), augmentation_seed, view)[data.split["train"]]
    return Part(f"train_view{view}", data.images("train"), draws, {"train": data.labels("train")})


def make_clean_parts(data: CIFAR10Data, train_eval_images: int, seed: int) -> list[Part]:
    """Without augmentation: a stratified sample of the training images, the validation and the test images."""
    labels = data.labels("train")
    chosen = stratified_take(labels, min(train_eval_images, len(labels)), np.random.default_rng(seed))
    sample = Part("train_eval", data.images("train")[chosen], None, {"train_eval": labels[chosen]})
    return [sample, *(Part(name, data.images(name), None, {name: data.labels(name)}) for name in ("val", "test"))]


def load_trunk(normalization: str) -> tuple[Trunk, dict]:
    """The frozen trunk as `prepare` and `backbone` left it, and what a cache of its outputs says of itself."""
    backbone, statistics = read_json("models/backbone.json"), read_json("data/stats.json")
    size, mean, std = backbone["image_size"], backbone["mean"], backbone["std"]
    if normalization == "cifar10":
        mean, std = standardize_like_imagenet(statistics["mean"], statistics["std"], mean, std)
    state, end = torch.load("models/backbone.pt", weights_only=True), backbone["trainable_from"]
    about = {name: backbone[name] for name in ("weights", "image_size", "padding", "trainable_from", "trunk_output")}
    return Trunk(state, size, mean, std, backbone["padding"], end), about | {"mean": mean, "std": std}


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


def keep_freed_memory() -> None:
    """Have glibc reuse freed memory, which it would hand back to the system and fetch again, zeroed, for every layer.

    That takes as long as the arithmetic in float32: without it a CPU extracts at half the speed. Other C libraries have
    no such setting, and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def make_extractor(trunk: torch.nn.Module, dtype: torch.dtype, device: torch.device, images: int) -> Extract:
    """A function uint8 (B, 32, 32, 3) -> float16 (B, H, W, C), compiled on a CPU with many images to come."""
    keep_freed_memory()
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


def extract_part(part: Part, extract: Extract, path: Path, shape: list[int], batch: int, done: Callable) -> None:
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


def write_parts(parts: list[Part], make: Callable[[], Extract], shape: list[int], scratch: Path, batch: int) -> None:
    """Fill `scratch` with every part and its labels; what a killed run left there is not computed again."""
    total = sum(len(part.images) for part in parts)
    present = sum(path.stat().st_size for path in scratch.glob("*.npy")) if scratch.exists() else 0
    require_disk(scratch, max(total * 2 * int(np.prod(shape)) - present, 0))
    extract = make()
    with tqdm.tqdm(total=total, unit="img", desc="features", mininterval=1 if sys.stderr.isatty() else 20) as bar:
        for part in parts:
            bar.set_postfix_str(part.name)
            extract_part(part, extract, scratch / f"{part.name}.npy", shape, batch, bar.update)
            for name, labels in part.labels.items():
                np.save(scratch / f"{name}_labels.npy", labels)


def fill_cache(
    folder: str, parts: list[Part], trunk: Trunk, about: dict, precision: str, seed: int, device: torch.device
) -> None:
    """Compute every part's trunk outputs into `folder`, which appears, or is replaced, when all are complete."""
    folder = Path(folder)
    dtype = choose_dtype(precision, device)
    images = {part.name: len(part.images) for part in parts}
    about = about | {"computed_in": str(dtype).removeprefix("torch."), "images": images}
    extractor = partial(make_extractor, trunk, dtype, device, sum(images.values()))
    code = [fill_cache, make_view, make_clean_parts]
    with kept_states(folder.name, f"extraction into {folder}", [about, seed, device.type], INPUTS, code) as scratch:
        write_parts(parts, extractor, about["trunk_output"], scratch, BATCH_SIZE[device.type])
        write_json(scratch / "about.json", about)
        replace_folder(scratch, folder)
