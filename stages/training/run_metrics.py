"""What finished runs leave: the flat metrics of one configuration, and its curves and gradients as tables."""

import copy

import numpy as np
import pandas as pd
import torch

from stages.core.files import write_csv
from stages.training.evaluation import evaluate, predict_logits, score
from stages.training.gradient_tracking import BINS
from stages.training.loop import Run
from stages.training.predictions import Predictions

CURVES = "seed epoch train_loss train_accuracy val_loss val_accuracy grad_norm clip_fraction".split()
Labelled = tuple[torch.Tensor, torch.Tensor]  # inputs and labels
MEAN_AND_SPREAD = ("test_accuracy", "val_accuracy")


def first_epoch_reaching(history: list[dict], share: float) -> int:
    """The first epoch (from 1) whose validation accuracy is at least `share` of the best one."""
    target = share * max(row["val_accuracy"] for row in history)
    return next(row["epoch"] for row in history if row["val_accuracy"] >= target)


def summarize_run(history: list[dict], best_epoch: int, train: dict, test: dict, final_test: dict) -> dict[str, float]:
    """One seed's metrics, from its curves and the evaluations of the selected (train, test) and the last weights.

    `train` is measured on training images without augmentation or dropout; generalization_gap is its accuracy less the
    test accuracy. Epochs count from 1.
    """
    best = history[best_epoch - 1]
    return {
        "test_accuracy": test["accuracy"],
        "val_accuracy": best["val_accuracy"],
        "train_accuracy": train["accuracy"],
        "test_loss": test["loss"],
        "val_loss": best["val_loss"],
        "final_test_accuracy": final_test["accuracy"],
        "final_val_accuracy": history[-1]["val_accuracy"],
        "best_epoch": best_epoch,
        "epochs_to_95pct": first_epoch_reaching(history, 0.95),
        "grad_norm_mean": float(np.mean([row["grad_norm"] for row in history])),
        "grad_norm_max": max(row["grad_norm_max"] for row in history),
        "clip_fraction": float(np.mean([row["clip_fraction"] for row in history])),
        "clip_coefficient": float(np.mean([row["clip_coefficient"] for row in history])),
        "generalization_gap": train["accuracy"] - test["accuracy"],
    }


def summarize_configuration(runs: dict[int, dict[str, float]]) -> dict[str, float | None]:
    """Means over seeds (grad_norm_max: the maximum), each seed's test accuracy, and how many seeds there are.

    `_std` is the sample standard deviation over seeds, null for a single seed.
    """
    metrics: dict[str, float | None] = {}
    for name in next(iter(runs.values())):
        values = [run[name] for run in runs.values()]
        metrics[name] = float(max(values) if name == "grad_norm_max" else np.mean(values))
        if name in MEAN_AND_SPREAD:
            metrics[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    metrics |= {f"test_accuracy_seed{seed}": run["test_accuracy"] for seed, run in runs.items()}
    return metrics | {"seeds": len(runs)}


def finish_run(run: Run, train: Labelled, test: Labelled) -> tuple[dict[str, float], np.ndarray]:
    """Load the selected weights, and read the test set: the only time, once for these and the last weights.

    `train` are training images without augmentation. Returns the run's metrics, and the selected weights' class
    probabilities of the test images, float32 (N, classes).
    """
    images, labels = test
    last = copy.deepcopy(run.model)
    run.model.load_state_dict(run.best["state_dict"])
    selected, final = predict_logits([run.model, last], images)
    of_train, of_test, of_last = evaluate(run.model, *train), score(selected, labels), score(final, labels)
    metrics = summarize_run(run.history, run.best["epoch"], of_train, of_test, of_last)
    return metrics, selected.softmax(1).numpy()


def finish_runs(runs: list[Run], train: Labelled, test: Labelled) -> tuple[dict[int, dict[str, float]], Predictions]:
    """`finish_run` for every seed: the metrics by seed, and what is to be stored of the test images."""
    finished = {run.seed: finish_run(run, train, test) for run in runs}
    probabilities = np.stack([own for _, own in finished.values()])
    metrics = {seed: own for seed, (own, _) in finished.items()}
    return metrics, Predictions(np.array(list(finished)), test[1].numpy(), probabilities)


def write_tables(runs: list[Run], curves_path: str, gradients_path: str) -> None:
    """The curves of all runs, a row per epoch, and their gradients, a row per epoch and layer."""
    curves = pd.DataFrame([row for run in runs for row in run.history])[CURVES]
    write_csv(curves_path, curves)
    rows = [row | dict(zip(BINS, row["shares"], strict=True)) for run in runs for row in run.gradients]
    gradients = pd.DataFrame(rows).drop(columns="shares")
    write_csv(gradients_path, gradients, "%.6g")
