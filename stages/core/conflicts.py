"""Values of params.yaml that are allowed one by one and do not go together: found before any work, not after it."""

from collections.abc import Collection
from typing import Any

from stages.core.choices import CLASSES

IMAGES = 50_000  # of CIFAR-10's training set
NEIGHBORS = 30  # t-SNE's perplexity: it takes more images than that


def count_images(data: Any) -> dict[str, int]:
    """How many images each part of the split has; see cifar10.make_split."""
    images = data.images or IMAGES
    held_out = round(images * data.validation_fraction)
    return {"train": images - held_out, "val": held_out, "test": images // 5}


def fit_batch(name: str, size: int, images: int, percent: float = 100) -> list[str]:
    share = round(images * percent / 100)
    if size <= share:
        return []
    of = "" if percent == 100 else f" ({percent:g}% of {images})"
    return [f"{name} is {size}, and there are only {share} training images{of}"]


def fit_split(params: Any, count: dict[str, int]) -> list[str]:
    if min(count["train"], count["val"]) >= CLASSES:
        return []
    return [
        f"data.validation_fraction is {params.data.validation_fraction!r}, which leaves {count['train']} images for "
        f"training and {count['val']} for validation; each needs {CLASSES} at least, one of every class"
    ]


def fit_study(params: Any, count: dict[str, int]) -> list[str]:
    gradients, curvature = params.gradients, params.curvature
    drawn = gradients.batches * gradients.batch_size
    problems = fit_batch("train.batch_size", params.train.batch_size, count["train"])
    problems += fit_batch("gradients.batches x gradients.batch_size", drawn, count["train"])
    if curvature.grid_images > curvature.images:
        problems.append(
            f"curvature.grid_images is {curvature.grid_images}; "
            f"it must be at most curvature.images, which is {curvature.images}"
        )
    images = min(curvature.images, count["val"])
    if 2 * curvature.eigenvalues > images:
        problems.append(
            f"curvature.eigenvalues is {curvature.eigenvalues}; {images} images allow at most {images // 2}"
        )
    return problems


def fit_unfreezing(params: Any, count: dict[str, int]) -> list[str]:
    own, end, sampled = params.unfreezing, params.backbone.trainable_from, params.features.train_eval_images
    problems = []
    if max(own.trainable_from) > end:
        problems.append(
            f"unfreezing.trainable_from has {max(own.trainable_from)}, and the trunk ends at features.{end}: "
            "leave that out, or raise backbone.trainable_from"
        )
    for part, images in {"validation": count["val"], "training accuracy": min(sampled, count["train"])}.items():
        if round(images * own.percent / 100) < 1:
            problems.append(f"unfreezing.percent is {own.percent!r}, which leaves none of {images} images for {part}")
    if count["test"] <= NEIGHBORS:
        problems.append(
            f"unfreezing needs more than {NEIGHBORS} test images, and there are only {count['test']}: raise data.images"
        )
    return problems


# A side study, or a part of one -> its batches' name, the largest, and of how many per cent of the training images.
BATCHES = {
    "thresholds": lambda p: ("train.batch_size", p.train.batch_size, p.variants.percent),
    "placements": lambda p: ("train.batch_size", p.train.batch_size, p.variants.percent),
    "batch_sizes": lambda p: ("variants.batch_sizes' largest", max(p.variants.batch_sizes), p.variants.percent),
    "unfreezing": lambda p: ("train.batch_size", p.train.batch_size, p.unfreezing.percent),
    "baseline": lambda p: ("baseline.batch_size", p.baseline.batch_size, min(p.baseline.percents)),
    "small_cnn": lambda p: ("small_cnn.batch_size", p.small_cnn.batch_size, p.small_cnn.percent),
    "small_cnn_sweep": lambda p: (
        "small_cnn_sweep.batch_sizes' largest",
        max(p.small_cnn_sweep.batch_sizes),
        p.small_cnn_sweep.percent,
    ),
    "mobilenetv2": lambda p: ("mobilenetv2.batch_size", p.mobilenetv2.batch_size, p.mobilenetv2.percent),
}


def find_conflicts(params: Any, task: Collection[str]) -> list[str]:
    """One line per conflict of the main study, and of the side study that `task` names.

    Only of that one: data that are too few for a side study must not stop the main study.
    """
    count = count_images(params.data)
    problems = fit_split(params, count)
    if problems:
        return problems
    problems = fit_study(params, count)
    for name, batches_of in BATCHES.items():
        if name in task:
            label, size, percent = batches_of(params)
            problems += fit_batch(label, size, count["train"], percent)
    return problems + (fit_unfreezing(params, count) if "unfreezing" in task else [])
