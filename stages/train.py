"""Train one configuration, features.18 and a head, for every seed: `python -m stages.train batchnorm clip`."""

import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from stages.lib.checkpoint import save_checkpoint
from stages.lib.feature_cache import FeatureCache
from stages.lib.files import SCRATCH, file_sha256, fingerprint, locked, write_json
from stages.lib.params import Params, configuration_key
from stages.lib.stage import run_stage
from stages.lib.summary import finish_run, summarize_configuration, write_tables
from stages.lib.training import Run
from stages.lib.transfer import assert_block_statistics_frozen
from stages.lib.transfer_training import train_seeds


def save_run(path: Path, run: Run, settings: dict, metrics: dict, cache: FeatureCache) -> None:
    """The selected weights, with what it takes to rebuild the network and to check them."""
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
            train, test = ((cache.features(part), cache.labels(part)) for part in ("train_eval", "test"))
            metrics[run.seed] = finish_run(run, train, test)
            save_run(path, run, settings | {"seed": run.seed}, metrics[run.seed], cache)
        write_tables(runs, f"plots/curves/{key}.csv", f"plots/gradients/{key}.csv")
        write_json(f"metrics/train/{key}.json", summarize_configuration(metrics))
        shutil.rmtree(states)
    return timing


if __name__ == "__main__":
    run_stage(main, "norm", "mode", timing="{}-{}")
