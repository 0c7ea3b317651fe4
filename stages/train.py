"""Train one configuration, features.18 and a head, for every seed: `python -m stages.train batchnorm clip`."""

import shutil
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from stages.lib.backbone import StateDict
from stages.lib.checkpoint import save_checkpoint
from stages.lib.device import choose_device, choose_dtype, move_if_it_fits
from stages.lib.evaluation import evaluate
from stages.lib.feature_cache import FeatureCache
from stages.lib.files import SCRATCH, StageError, file_sha256, fingerprint, locked, read_json, write, write_json
from stages.lib.gradients import BINS
from stages.lib.params import Params, configuration_key
from stages.lib.progress import Progress
from stages.lib.stage import run_stage
from stages.lib.summary import summarize_configuration, summarize_run
from stages.lib.training import DivergedError, Run, advance, make_optimizer, side_by_side
from stages.lib.transfer import assert_block_statistics_frozen, make_model

CURVES = "seed epoch train_loss train_accuracy val_loss val_accuracy grad_norm clip_fraction".split()


def start_run(settings: dict, backbone: StateDict, dtype: torch.dtype, device: torch.device) -> Run:
    model = make_model(
        backbone,
        settings["norm"],
        seed=settings["seed"],
        dropout_rate=settings["dropout"],
        placement=settings["placement"],
        frn_learned_eps=settings["frn_learned_eps"],
        block_bn_statistics=settings["block_bn_statistics"],
        product_dtype=dtype,
    ).to(device)
    return Run(settings["seed"], model, make_optimizer(model, settings["head_lr"], settings["block_lr"]))


def finish_run(run: Run, cache: FeatureCache, settings: dict, path: Path) -> dict[str, float]:
    """Evaluate the last and the selected weights, the test set for the first time, and save the checkpoint."""
    final_test = evaluate(run.model, cache.features("test"), cache.labels("test"))
    run.model.load_state_dict(run.best["state_dict"])
    train, test = (evaluate(run.model, cache.features(part), cache.labels(part)) for part in ("train_eval", "test"))
    metrics = summarize_run(run.history, run.best["epoch"], train, test, final_test)
    about = read_json(cache.folder / "about.json")
    save_checkpoint(
        path,
        {
            "state_dict": run.best["state_dict"],
            "params": settings,
            "input": {name: about[name] for name in ("weights", "image_size", "mean", "std")},
            "epoch": run.best["epoch"],
            "val_accuracy": metrics["val_accuracy"],
            "test_accuracy": metrics["test_accuracy"],
            "split_sha256": file_sha256("data/split.npz"),
        },
    )
    return metrics


def write_results(key: str, runs: list[Run], metrics: dict[int, dict], timing: dict) -> None:
    curves = pd.DataFrame([row for run in runs for row in run.history])[CURVES]
    write(f"plots/curves/{key}.csv", lambda path: curves.to_csv(path, index=False))
    rows = [row | dict(zip(BINS, row["shares"], strict=True)) for run in runs for row in run.gradients]
    gradients = pd.DataFrame(rows).drop(columns="shares")
    write(f"plots/gradients/{key}.csv", lambda path: gradients.to_csv(path, index=False, float_format="%.6g"))
    write_json(f"metrics/train/{key}.json", summarize_configuration(metrics))
    write_json(f"metrics/timing/{key}.json", timing)


def main(params: Params, norm: str, mode: str) -> None:
    key = configuration_key(norm, mode)
    settings = asdict(params.train) | {"norm": norm, "clip": getattr(params, mode)}
    epochs, batch_size = settings["epochs"], settings["batch_size"]
    device = choose_device()
    dtype = choose_dtype(settings["precision"], device)
    cache = FeatureCache()
    train_labels, val_labels = cache.labels("train"), cache.labels("val")
    if batch_size > len(train_labels):
        raise StageError(f"train.batch_size is {batch_size}, and there are only {len(train_labels)} training images")
    backbone = torch.load("models/backbone.pt", weights_only=True)
    views = [move_if_it_fits(cache.features(f"train_view{view}"), device) for view in range(cache.views)]
    val_features = move_if_it_fits(cache.features("val"), device)
    inputs = ["models/backbone.pt", "data/split.npz", "data/features/about.json"]
    scratch = SCRATCH / "train" / key
    with locked(scratch, f"training of {key}"):
        states = scratch / fingerprint(settings | {"dtype": str(dtype)}, inputs)
        seed_settings = {seed: settings | {"seed": seed} for seed in params.seeds}
        runs = [start_run(own, backbone, dtype, device) for own in seed_settings.values()]
        for run in runs:
            run.restore(states)

        steps = len(train_labels) // batch_size
        restored = sum(run.epoch for run in runs)
        progress = Progress(key, steps * epochs * len(runs), steps * restored)

        def next_epoch(run: Run) -> None:
            features = views[run.epoch % len(views)]
            threshold = settings["clip"]
            advance(run, features, train_labels, val_features, val_labels, batch_size, threshold, progress.step)
            run.save(states)
            progress.report_epoch(run.history[-1], epochs)

        started = time.perf_counter()
        try:
            workers = side_by_side(runs, epochs, next_epoch, device, progress)
        except DivergedError as error:
            raise StageError(
                f"{key}, {error}. No result was written; lower train.head_lr or train.block_lr, or clip. "
                "The results of the last good run come back with `dvc checkout` and `git checkout -- metrics plots`"
            ) from None
        seconds = time.perf_counter() - started

        metrics = {}
        for run in runs:
            if settings["block_bn_statistics"] == "frozen":
                assert_block_statistics_frozen(run.model, backbone)
            metrics[run.seed] = finish_run(run, cache, seed_settings[run.seed], Path(f"models/{key}/seed{run.seed}.pt"))
        timing = {
            "seconds": seconds,
            "epochs_timed": epochs * len(runs) - restored,
            "seconds_per_epoch": seconds / max(1, epochs * len(runs) - restored),
            "workers": workers,
            "device": device.type,
            "products": str(dtype).removeprefix("torch."),
        }
        write_results(key, runs, metrics, timing)
        shutil.rmtree(states)


if __name__ == "__main__":
    run_stage(main, "norm", "mode")
