"""Train one configuration, features.18 and a head, for every seed: `python -m stages.train batchnorm clip`."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from stages.lib.checkpoint import save_checkpoint
from stages.lib.evaluation import evaluate
from stages.lib.feature_cache import FeatureCache
from stages.lib.files import SCRATCH, file_sha256, fingerprint, locked, write, write_json
from stages.lib.gradients import BINS
from stages.lib.params import Params, configuration_key
from stages.lib.stage import run_stage
from stages.lib.summary import summarize_configuration, summarize_run
from stages.lib.training import Run
from stages.lib.transfer import assert_block_statistics_frozen
from stages.lib.transfer_training import train_seeds

CURVES = "seed epoch train_loss train_accuracy val_loss val_accuracy grad_norm clip_fraction".split()


def finish_run(run: Run, cache: FeatureCache, settings: dict, path: Path) -> dict[str, float]:
    """Evaluate the last and the selected weights, the test set for the first time, and save the checkpoint."""
    final_test = evaluate(run.model, cache.features("test"), cache.labels("test"))
    run.model.load_state_dict(run.best["state_dict"])
    train, test = (evaluate(run.model, cache.features(part), cache.labels(part)) for part in ("train_eval", "test"))
    metrics = summarize_run(run.history, run.best["epoch"], train, test, final_test)
    save_checkpoint(
        path,
        {
            "state_dict": run.best["state_dict"],
            "params": settings,
            "input": {name: cache.about[name] for name in ("weights", "image_size", "mean", "std")},
            "epoch": run.best["epoch"],
            "val_accuracy": metrics["val_accuracy"],
            "test_accuracy": metrics["test_accuracy"],
            "split_sha256": file_sha256("data/split.npz"),
        },
    )
    return metrics


def write_results(key: str, runs: list[Run], metrics: dict[int, dict]) -> None:
    curves = pd.DataFrame([row for run in runs for row in run.history])[CURVES]
    write(f"plots/curves/{key}.csv", lambda path: curves.to_csv(path, index=False))
    rows = [row | dict(zip(BINS, row["shares"], strict=True)) for run in runs for row in run.gradients]
    gradients = pd.DataFrame(rows).drop(columns="shares")
    write(f"plots/gradients/{key}.csv", lambda path: gradients.to_csv(path, index=False, float_format="%.6g"))
    write_json(f"metrics/train/{key}.json", summarize_configuration(metrics))


def main(params: Params, norm: str, mode: str) -> dict:
    key = configuration_key(norm, mode)
    backbone = torch.load("models/backbone.pt", weights_only=True)
    cache = FeatureCache()
    settings = asdict(params.train) | cache.model_settings | {"norm": norm, "clip": getattr(params, mode)}
    scratch = SCRATCH / "train" / key
    with locked(scratch, f"training of {key}"):
        states = scratch / fingerprint(settings, ["models/backbone.pt", "data/split.npz", "data/features/about.json"])
        runs, timing = train_seeds(key, settings, params.seeds, backbone, cache.training_data(), states)
        metrics = {}
        for run in runs:
            if settings["block_bn_statistics"] == "frozen":
                assert_block_statistics_frozen(run.model, backbone)
            path = Path(f"models/{key}/seed{run.seed}.pt")
            metrics[run.seed] = finish_run(run, cache, settings | {"seed": run.seed}, path)
        write_results(key, runs, metrics)
        shutil.rmtree(states)
    return timing


if __name__ == "__main__":
    run_stage(main, "norm", "mode", timing="{}-{}")
