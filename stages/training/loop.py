"""The training loop, over stored features or over images, and several seeds side by side.

A step here is many small products, which use one core better than two: on a 2-core machine two seeds at a time, each
on one core, train about a quarter faster than one seed on both.
"""

import math
import pickle
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stages.core.checkpoints import load_checkpoint, save_checkpoint
from stages.core.device import make_pool
from stages.core.files import StageError
from stages.core.progress import Progress
from stages.models.dropout import seed_dropout
from stages.training.evaluation import evaluate
from stages.training.gradient_tracking import GradientTracker, clip_gradients, find_clip_factors


class DivergedError(StageError):
    """A loss, a gradient or a weight is no longer finite."""


def derive_seed(seed: int, *purpose: int) -> int:
    """An independent seed for each purpose, such as (epoch, 0) for the batch order and (epoch, 1) for dropout."""
    return int(np.random.SeedSequence([seed, *purpose]).generate_state(1)[0])


class DataSource(Protocol):
    """What a network trains on and is selected by; inputs are whatever it takes, stored features or images."""

    labels: torch.Tensor  # int64 (N,)
    val_inputs: torch.Tensor  # (M, ...)
    val_labels: torch.Tensor  # int64 (M,)

    def view(self, epoch: int) -> torch.Tensor:
        """The training inputs (N, ...) of an epoch, from 0, augmented anew."""


@dataclass
class Run:
    """One seed's training: everything that changes from epoch to epoch, and so everything that resuming needs."""

    seed: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None  # stepped after every batch
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
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "history": self.history,
            "gradients": self.gradients,
            "best": self.best,
        }

    def load_state(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        if state["optimizer"]:
            self.optimizer.load_state_dict(state["optimizer"])
        if state["scheduler"]:
            self.scheduler.load_state_dict(state["scheduler"])
        self.history, self.gradients, self.best = state["history"], state["gradients"], state["best"]

    def save(self, folder: Path) -> None:
        """Leave in `folder` what `restore` needs to go on from here."""
        save_checkpoint(folder / f"seed{self.seed}.pt", self.state())

    def save_finished(self, folder: Path) -> None:
        """Leave in `folder` all that is wanted of a run that ends here: not the optimizer's state, the larger part."""
        save_checkpoint(folder / f"seed{self.seed}.pt", self.state() | {"optimizer": None, "scheduler": None})

    def restore(self, folder: Path) -> None:
        """Go on from where another process left this seed, killed or finished, if it left anything in `folder`."""
        path = folder / f"seed{self.seed}.pt"
        if not path.exists():
            return
        try:
            state = load_checkpoint(path)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            print(f"{path} is damaged: seed {self.seed} is trained anew", file=sys.stderr)
            path.unlink()
        else:
            self.load_state(state)


def require_finite(run: Run, what: str, values: np.ndarray) -> None:
    """Raise DivergedError, naming seed, epoch and step, unless the values (steps,) of this epoch are all finite."""
    if not np.isfinite(values).all():
        step = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DivergedError(f"seed {run.seed}, epoch {run.epoch + 1}, step {step + 1}: the {what} is {values[step]}")


def require_finite_weights(run: Run) -> None:
    """Raise DivergedError if the epoch's last step left a weight or a statistic that is not finite."""
    for name, value in run.model.state_dict().items():
        if not value.isfinite().all():
            raise DivergedError(f"seed {run.seed}, epoch {run.epoch + 1}, after the last step: {name} is not finite")


def train_epoch(
    run: Run,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int,
    threshold: float | None,
    tracker: GradientTracker,
    on_step: Callable,
) -> dict[str, float]:
    """One pass over the images in a fresh order; an incomplete last batch is left out.

    Order and dropout depend on the run's seed and epoch alone, so resuming needs no random state. Returns train_loss
    and train_accuracy, means over the steps; raises DivergedError, naming the step, if a loss was not finite.
    """
    model, device = run.model, next(run.model.parameters()).device
    model.train()
    seed_dropout(model, derive_seed(run.seed, run.epoch, 1), device)
    generator = torch.Generator().manual_seed(derive_seed(run.seed, run.epoch, 0))
    order = torch.randperm(len(labels), generator=generator)
    losses, correct = [], []
    for batch in order[: len(labels) // batch_size * batch_size].split(batch_size):
        x, y = inputs[batch.to(inputs.device)].to(device), labels[batch].to(device)
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        run.optimizer.zero_grad()
        loss.backward()
        tracker.record()
        clip_gradients(model, threshold)
        run.optimizer.step()
        if run.scheduler:
            run.scheduler.step()
        losses.append(loss.detach())
        correct.append((logits.argmax(1) == y).sum())
        on_step()
    losses = torch.stack(losses).cpu().double()
    require_finite(run, "loss", losses.numpy())
    return {
        "train_loss": losses.mean().item(),
        "train_accuracy": torch.stack(correct).sum().item() / (len(correct) * batch_size),
    }


def advance(run: Run, data: DataSource, batch_size: int, threshold: float | None, on_step: Callable) -> None:
    """Train one epoch, validate, and add what was seen to the run; a first-best checkpoint is kept by accuracy."""
    with GradientTracker(run.model) as tracker:
        row = train_epoch(run, data.view(run.epoch), data.labels, batch_size, threshold, tracker, on_step)
    factors = find_clip_factors(tracker.total_norms, threshold)
    require_finite(run, "gradient norm", tracker.total_norms)
    require_finite_weights(run)
    epoch = run.epoch + 1
    validation = evaluate(run.model, data.val_inputs, data.val_labels)
    run.history.append(
        {
            "seed": run.seed,
            "epoch": epoch,
            **row,
            "val_loss": validation["loss"],
            "val_accuracy": validation["accuracy"],
            "grad_norm": float(tracker.total_norms.mean()),
            "grad_norm_max": float(tracker.total_norms.max()),
            "clip_fraction": float((factors < 1).mean()),
            "clip_coefficient": float(factors.mean()),
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


def share_cores(device: torch.device, runs: int) -> tuple[int, int]:
    """How many runs train at a time, as many as there are cores (GPU: one), and on how many threads each of them.

    Neither depends on how many of the runs are finished already: rounding depends on the threads.
    """
    cores = torch.get_num_threads() if device.type == "cpu" else 1
    workers = min(cores, runs)
    return workers, cores // workers


def side_by_side(
    runs: list[Run], epochs: int, next_epoch: Callable[[Run], None], device: torch.device, progress: Progress
) -> int:
    """Call `next_epoch(run)` until every run has `epochs`, as many runs at a time as `share_cores` says.

    Epochs are handed out in turn, so that three seeds keep two cores busy to the end. When one fails, or on Ctrl-C, the
    others stop at their next step. Returns the number of workers.
    """
    workers, threads = share_cores(device, len(runs))
    with make_pool(workers, threads) as pool:
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


def train_runs(
    title: str, runs: list[Run], data: DataSource, epochs: int, batch_size: int, threshold: float | None, states: Path
) -> dict:
    """Train every run to the end; returns what wall-clock figures there are.

    After each epoch a run is saved in the folder `states`, from which a killed training goes on; what is finished there
    is not trained again. Gradients are clipped at `threshold`, if there is one. Raises StageError if a loss, a gradient
    or a weight is no longer finite.
    """
    device = next(runs[0].model.parameters()).device
    images = len(data.labels)
    if batch_size > images:
        raise StageError(f"{title}: the batch size is {batch_size}, and there are only {images} training images")
    states = states / f"{device.type}-{share_cores(device, len(runs))[1]}"
    for run in runs:
        run.restore(states)
    steps, restored = images // batch_size, sum(run.epoch for run in runs)
    progress = Progress(title, steps * epochs * len(runs), steps * restored)

    def next_epoch(run: Run) -> None:
        advance(run, data, batch_size, threshold, progress.step)
        run.save(states) if run.epoch < epochs else run.save_finished(states)
        progress.report_epoch(run.history[-1], epochs)

    started = time.perf_counter()
    try:
        workers = side_by_side(runs, epochs, next_epoch, device, progress)
    except DivergedError as error:
        raise StageError(
            f"{title}, {error}. No result was written; lower the learning rate, or clip. "
            "The results of the last good run come back with `dvc checkout` and `git checkout -- metrics plots`"
        ) from None
    seconds, timed = time.perf_counter() - started, epochs * len(runs) - restored
    return {
        "training_seconds": None if restored else seconds,
        "epochs_timed": timed,
        "seconds_per_epoch": seconds / timed if timed else None,
        "workers": workers,
        "device": device.type,
    }
