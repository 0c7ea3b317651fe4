"""Fetch and verify CIFAR-10, split it, measure the training part, and draw it."""

from stages.core.files import write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.data.cifar10 import CIFAR10Data, compute_statistics, make_split, save_arrays
from stages.data.cifar10_sources import load_cifar10
from stages.reporting.plotting import draw_class_distribution, draw_samples, save_figure


def main(params: Params) -> None:
    settings = params.data
    source, arrays = load_cifar10(settings.source)
    split = make_split(
        arrays["train_labels"],
        arrays["test_labels"],
        settings.validation_fraction,
        settings.split_seed,
        settings.images,
    )
    data = CIFAR10Data(arrays, split)

    save_arrays("data/cifar10.npz", arrays)
    save_arrays("data/split.npz", split)
    write_json("data/stats.json", compute_statistics(data.images("train"), data.labels("train")))
    save_figure(draw_samples(data), "plots/data/samples.png")
    save_figure(draw_class_distribution(data), "plots/data/class_distribution.png")
    print(f"CIFAR-10 from {source}, verified: " + ", ".join(f"{len(v)} {k}" for k, v in split.items()))


if __name__ == "__main__":
    run_stage(main, timing="prepare")
