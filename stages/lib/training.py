"""The training loop over stored features, and several seeds side by side.

A step here is many small products, which use one core better than two: on a 2-core machine two seeds at a time, each
on one core, train about a quarter faster than one seed on both.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from stages.lib.backbone import StateDict
from stages.lib.checkpoint import load_checkpoint, save_checkpoint
from stages.lib.device import choose_device, choose_dtype
from stages.lib.evaluation import evaluate
from stages.lib.feature_cache import TrainingData
from stages.lib.files import StageError
from stages.lib.gradients import GradientTracker, clip_gradients
from stages.lib.progress import Progress
from stages.lib.transfer import TransferModel, make_model_from_settings


class DivergedError(StageError):
    """The training loss is no longer finite."""


def derive_seed(seed: int, *purpose: int) -> int:
    """An independent seed for each purpose, such as (epoch, 0) for the batch order and (epoch, 1) for dropout."""
    return int(np.random.SeedSequence([seed, *purpose]).generate_state(1)[0])


@dataclass
class Run:
    """One seed's training: everything that changes from epoch to epoch, and so everything that resuming needs."""

    seed: int
    model: TransferModel
    optimizer: torch.optim.Optimizer
    history: list[dict] = field(default_factory=list)  # one row of the curves per epoch
    gradients: list[dict] = field(default_factory=list)  # one row per epoch and layer
    best: dict = field(default_factory=dict)  # epoch, val_accuracy, state_dict

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return len(self.history)

    def state(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "gradients": self.gradients,
            "best": self.best,
        }

    def load_state(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.gradients, self.best = state["history"], state["gradients"], state["best"]

    def save(self, folder: Path) -> None:
        """Leave in `folder` what `restore` needs to go on from here."""
        save_checkpoint(folder / f"seed{self.seed}.pt", self.state())

    def restore(self, folder: Path) -> None:
        """Go on from where a killed process left this seed, if it left anything in `folder`."""
        path = folder / f"seed{self.seed}.pt"
        if path.exists():
            self.load_state(load_checkpoint(path))


def make_optimizer(model: TransferModel, head_lr: float, block_lr: float) -> torch.optim.Adam:
    """Adam (Kingma & Ba 2015) with one step size for the head and one for features.18."""
    groups = [
        {"params": model.block.parameters(), "lr": block_lr},
        {"params": model.head.parameters(), "lr": head_lr},
    ]
    return torch.optim.Adam(groups, fused=True)


def train_epoch(
    run: Run, features: torch.Tensor, labels: torch.Tensor, batch_size: int, tracker: GradientTracker, on_step: Callable
) -> dict[str, float]:
    """One pass over the images in a fresh order; an incomplete last batch is left out.

    Order and dropout depend on the run's seed and epoch alone, so resuming needs no random state. Returns train_loss
    and train_accuracy, means over the steps; raises DivergedError, naming the step, if a loss was not finite.
    """
    model, device = run.model, next(run.model.parameters()).device
    model.train()
    model.head.dropout.seed(derive_seed(run.seed, run.epoch, 1), device)
    generator = torch.Generator().manual_seed(derive_seed(run.seed, run.epoch, 0))
    order = torch.randperm(len(labels), generator=generator)
    losses, correct = [], []
    for batch in order[: len(labels) // batch_size * batch_size].split(batch_size):
        x, y = features[batch.to(features.device)].to(device), labels[batch].to(device)
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        run.optimizer.zero_grad()
        loss.backward()
        tracker.record()
        clip_gradients(model, tracker.threshold)
        run.optimizer.step()
        losses.append(loss.detach())
        correct.append((logits.argmax(1) == y).sum())
        on_step()
    losses = torch.stack(losses).double().cpu()
    if not losses.isfinite().all():
        step = int((~losses.isfinite()).nonzero()[0]) + 1
        raise DivergedError(
            f"seed {run.seed}, epoch {run.epoch + 1}, step {step}: the loss is {losses[step - 1].item()}"
        )
    return {
        "train_loss": losses.mean().item(),
        "train_accuracy": torch.stack(correct).sum().item() / (len(correct) * batch_size),
    }


def advance(run: Run, data: TrainingData, batch_size: int, threshold: float | None, on_step: Callable) -> None:
    """Train one epoch, validate, and add what was seen to the run; a first-best checkpoint is kept by accuracy."""
    features = data.views[run.epoch % len(data.views)]
    with GradientTracker(run.model, threshold) as tracker:
        row = train_epoch(run, features, data.labels, batch_size, tracker, on_step)
    epoch = run.epoch + 1
    validation = evaluate(run.model, data.val_features, data.val_labels)
    run.history.append(
        {
            "seed": run.seed,
            "epoch": epoch,
            **row,
            "val_loss": validation["loss"],
            "val_accuracy": validation["accuracy"],
            "grad_norm": float(tracker.total_norms.mean()),
            "grad_norm_max": float(tracker.total_norms.max()),
            "clip_fraction": float((tracker.clip_coefficients < 1).mean()),
            "clip_coefficient": float(tracker.clip_coefficients.mean()),
        }
    )
    for index, layer in enumerate(tracker.parameters):
        norms = tracker.layer_norms[:, index]
        run.gradients.append(
            {
                "seed": run.seed,
                "epoch": epoch,
                "layer": layer,
                "norm_mean": float(norms.mean()),
                "norm_max": float(norms.max()),
                "weight_norm": float(tracker.weight_norms[index]),
                "update_norm": float(tracker.update_norms[index]),
                "cosine": float(tracker.cosines[index]),
                "shares": tracker.histograms[layer].tolist(),
            }
        )
    if validation["accuracy"] > run.best.get("val_accuracy", -math.inf):
        state = {name: value.detach().cpu().clone() for name, value in run.model.state_dict().items()}
        run.best = {"epoch": epoch, "val_accuracy": validation["accuracy"], "state_dict": state}


def side_by_side(
    runs: list[Run], epochs: int, next_epoch: Callable[[Run], None], device: torch.device, progress: Progress
) -> int:
    """Call `next_epoch(run)` until every run has `epochs`, as many runs at a time as there are cores (CUDA: one).

    Epochs are handed out in turn, so that three seeds keep two cores busy to the end. When one fails, or on Ctrl-C, the
    others stop at their next step. Returns the number of workers.
    """
    cores = torch.get_num_threads() if device.type == "cpu" else 1
    workers = min(cores, len(runs))
    threads = cores // workers  # the same when a killed run goes on, since rounding depends on it
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        pending = {pool.submit(next_epoch, run): run for run in runs if run.epoch < epochs}
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    run = pending.pop(future)
                    future.result()
                    if run.epoch < epochs:
                        pending[pool.submit(next_epoch, run)] = run
        finally:
            progress.stop()
    return workers


def train_seeds(
    title: str, settings: dict, seeds: list[int], backbone: StateDict, data: TrainingData, states: Path
) -> tuple[list[Run], dict]:
    """Train one configuration for every seed; returns the finished runs and what wall-clock figures there are.

    `settings` are the parameters of section `train` and `norm` and `clip`. After each epoch the run is saved in the
    folder `states`, from which a killed training goes on. Raises StageError if the loss of a run is no longer finite.
    """
    device = choose_device()
    dtype = choose_dtype(settings["precision"], device)
    epochs, batch_size = settings["epochs"], settings["batch_size"]
    if batch_size > len(data.labels):
        raise StageError(f"train.batch_size is {batch_size}, and there are only {len(data.labels)} training images")
    runs = []
    for seed in seeds:
        model = make_model_from_settings(settings | {"seed": seed}, backbone, dtype).to(device)
        runs.append(Run(seed, model, make_optimizer(model, settings["head_lr"], settings["block_lr"])))
        runs[-1].restore(states)
    steps, restored = len(data.labels) // batch_size, sum(run.epoch for run in runs)
    progress = Progress(title, steps * epochs * len(runs), steps * restored)

    def next_epoch(run: Run) -> None:
        advance(run, data, batch_size, settings["clip"], progress.step)
        run.save(states)
        progress.report_epoch(run.history[-1], epochs)

    started = time.perf_counter()
    try:
        workers = side_by_side(runs, epochs, next_epoch, device, progress)
    except DivergedError as error:
        raise StageError(
            f"{title}, {error}. No result was written; lower train.head_lr or train.block_lr, or clip. "
            "The results of the last good run come back with `dvc checkout` and `git checkout -- metrics plots`"
        ) from None
    seconds, timed = time.perf_counter() - started, epochs * len(runs) - restored
    return runs, {
        "training_seconds": seconds,
        "epochs_timed": timed,
        "seconds_per_epoch": seconds / max(1, timed),
        "workers": workers,
        "device": device.type,
        "products": str(dtype).removeprefix("torch."),
    }
