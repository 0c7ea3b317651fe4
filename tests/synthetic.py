"""Result files of a study with any number of seeds and norms, made from the committed ones in moments."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from dvc.utils.hydra import apply_overrides

from stages.models import transfer_model
from stages.models.configurations import MODES
from stages.models.transfer_model import TransferModel, TransferRecipe
from stages.training.predictions import Predictions

IMAGES = 200  # in the test set
COMMITTED_SEEDS = 3
BACKBONE = {"weights": "keras_160", "image_size": 160, "trainable_from": 18}


RECIPE = TransferRecipe(
    epochs=1,
    batch_size=16,
    head_lr=1e-3,
    block_lr=1e-5,
    dropout=0.5,
    placement="vector",
    block_bn_statistics="frozen",
    frn_learned_eps=1e-4,
    precision="float32",
    trainable_from=18,
    padding="symmetric",
    norm="batchnorm",
    clip=None,
)


def make_model(
    backbone: dict, norm: str, *, seed: int, product_dtype: torch.dtype = torch.float32, **changes
) -> TransferModel:
    """A model of RECIPE with another norm, and further changes."""
    return transfer_model.make_model(backbone, replace(RECIPE, norm=norm, **changes), seed, product_dtype)


def repeat_seeds(table: pd.DataFrame, seeds: int, rng: np.random.Generator) -> pd.DataFrame:
    """The rows of `seeds` seeds: those of the committed ones in turn, their numbers changed by about 1%."""
    committed = [rows for _, rows in table.groupby("seed")]
    rows = pd.concat([committed[seed % COMMITTED_SEEDS].assign(seed=seed) for seed in range(seeds)])
    measured = rows.select_dtypes("float").columns
    rows[measured] *= rng.normal(1, 0.01, (len(rows), 1))
    return rows


def make_metrics(metrics: dict, accuracies: np.ndarray) -> dict:
    """The metrics of a training with these test accuracies, one per seed."""
    spread = {name: None for name in metrics if name.endswith("_std")} if len(accuracies) == 1 else {}
    own = {f"test_accuracy_seed{seed}": value for seed, value in enumerate(accuracies)}
    rest = {name: value for name, value in metrics.items() if not name.startswith("test_accuracy_seed")}
    return rest | spread | {"test_accuracy": accuracies.mean()} | own | {"seeds": len(accuracies)}


def make_study(committed: Path, folder: Path, seeds: int, norms: list[str]) -> None:
    """All that the stages after the models read, in `folder`; the surfaces and predictions are made up."""
    rng = np.random.default_rng(0)
    shutil.copytree(committed / "stages", folder / "stages")
    for name in ("data/predictions", "models", "plots/landscapes"):
        (folder / name).mkdir(parents=True)
    shutil.copy(committed / "params.yaml", folder)
    apply_overrides(folder / "params.yaml", [f"norms=[{','.join(norms)}]", f"seeds={list(range(seeds))}"])
    (folder / "models/backbone.json").write_text(json.dumps(BACKBONE))
    labels = np.arange(IMAGES) % 10
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "data/cifar10.npz", test_images=images, test_labels=labels)
    np.savez(folder / "data/split.npz", test=np.arange(IMAGES))
    axis = np.linspace(-1, 1, 11)
    for key in [f"{norm}-{mode}" for norm in norms for mode in MODES]:
        for name in ("curves", "gradients", "curvature"):
            table = repeat_seeds(pd.read_csv(committed / f"plots/{name}/{key}.csv"), seeds, rng)
            write_csv(table, folder / f"plots/{name}/{key}.csv")
        copy(committed, folder, f"plots/curvature_details/{key}.csv")
        for name in ("curvature", "gradients", "landscape"):
            copy(committed, folder, f"metrics/{name}/{key}.json")
        loss = 0.3 + rng.uniform(0.5, 2) * (axis[:, None] ** 2 + axis**2)
        np.savez(folder / f"plots/landscapes/{key}.npz", alphas=axis, betas=axis, loss=loss, accuracy=np.exp(-loss))
        logits = rng.normal(0, 1, (seeds, IMAGES, 10)) + 3 * np.eye(10)[labels]
        probabilities = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
        found = Predictions(np.arange(seeds), labels, probabilities.astype(np.float32))
        found.save(folder / f"data/predictions/{key}.npz")
        metrics = json.loads((committed / f"metrics/train/{key}.json").read_text())
        path = folder / f"metrics/train/{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make_metrics(metrics, found.correct.mean(1))))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.6g")


def copy(committed: Path, folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(committed / name, folder / name)
