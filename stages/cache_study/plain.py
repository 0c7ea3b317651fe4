"""Compute what a plain float32 network gives of every validation image where the cache has it in half precision."""

import numpy as np
import torch
import tqdm

from stages.core.device import take_device
from stages.core.files import write
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.data.cifar10 import CIFAR10Data
from stages.data.feature_extraction import load_trunk
from stages.training.evaluation import BATCH_SIZE


def main(params: Params) -> None:
    device = take_device(params)
    trunk, _ = load_trunk(params.features.normalization)
    images = torch.from_numpy(CIFAR10Data.load().images("val"))
    batches = tqdm.tqdm(images.split(BATCH_SIZE), desc="plain network", disable=None)
    with torch.no_grad():
        plain = torch.cat([trunk.to(device)(batch.to(device)).cpu() for batch in batches])
    write("data/cache_study_plain.npy", lambda path: np.save(path, plain.numpy()))


if __name__ == "__main__":
    run_stage(main, timing="cache_study/plain")
