"""The studies that train from images, run tiny by their own pipelines on real CIFAR-10."""

import networkx as nx
import numpy as np
import pandas as pd
import pypdf
import pytest
import torch
from dvc.repo import Repo

from stages.baseline.network import make_baseline_cnn
from stages.core.params import load_params
from stages.mobilenetv2.network import make_mobilenetv2
from stages.models.image_classifier import ImageClassifier
from stages.models.transfer_model import rebuild_model
from stages.models.trunk import Trunk
from stages.reporting.results import percent
from stages.small_cnn.network import make_small_cnn
from stages.small_cnn_sweep.report import draw_sweep
from stages.unfreezing.layer_outputs import replace_blocks
from tests.conftest import ALWAYS, ROOT
from tests.test_pipeline import stages_run


def keep(study: str, *variants: str) -> list[str]:
    """The settings that leave a study these variants of those in params.yaml."""
    listed = getattr(load_params(ROOT / "params.yaml"), study).variants
    return [f"~{study}.variants.{name}" for name in listed if name not in variants]


TINY = {
    "baseline": ["baseline.epochs=2", "baseline.seeds=[0,1]", "baseline.percents=[50,100]", "baseline.batch_size=16"],
    "small_cnn": ["small_cnn.epochs=2", "small_cnn.batch_size=16", *keep("small_cnn", "groupnorm", "layernorm")],
    "small_cnn_sweep": [
        "small_cnn_sweep.epochs=1",
        "small_cnn_sweep.percent=100",
        "small_cnn_sweep.batch_sizes=[16]",
        "small_cnn_sweep.lrs=[0.001,0.01]",
    ],
    "mobilenetv2": ["mobilenetv2.epochs=1", "mobilenetv2.batch_size=16", *keep("mobilenetv2", "plain", "width_half")],
}
UNFREEZING = [
    "unfreezing.epochs=2",
    "unfreezing.percent=50",
    "unfreezing.views=1",
    "unfreezing.trainable_from=[18,16]",
    "unfreezing.embedded_images=100",
]
VARIANTS = [
    "variants.epochs=1",
    "variants.percent=50",
    "variants.seeds=[0]",
    "variants.thresholds=[1.0,2.0]",
    "variants.batch_sizes=[8,16]",
]
TRAINED = {
    "baseline": ["50", "100"],
    "small_cnn": ["groupnorm", "layernorm"],
    "small_cnn_sweep": ["groupnorm-16-0.001", "groupnorm-16-0.01", "layernorm-16-0.001", "layernorm-16-0.01"],
    "mobilenetv2": ["plain", "width_half"],
}
STUDIES = [*TINY, "unfreezing", "variants", "neighbours"]
REPORTED = [study for study in TRAINED if study != "small_cnn_sweep"]  # by image_report.report_study


MAKE = (make_baseline_cnn, make_small_cnn, make_mobilenetv2)


@pytest.fixture(scope="module")
def neighbours(tiny, tmp_path_factory):
    """The tiny study with all neighbours run."""
    checkout = tiny.copy_to(tmp_path_factory.mktemp("neighbours") / "copy")
    checkout.set_params(*sum(TINY.values(), UNFREEZING + VARIANTS))
    checkout.first_run = stages_run(checkout.run("dvc", "repro", *(f"stages/{study}/dvc.yaml" for study in STUDIES)))
    return checkout


def stages_of(study: str, run: set[str]) -> set[str]:
    """Those of a study's pipeline, by their names in it."""
    prefix = f"stages/{study}/dvc.yaml:"
    return {name.removeprefix(prefix) for name in run if name.startswith(prefix)}


@pytest.mark.parametrize("study", TINY)
def test_a_neighbour_runs_its_variants(neighbours, study):
    own = {"report", "transfer", "compare"} if study == "baseline" else {"report"}
    assert stages_of(study, neighbours.first_run) == {f"train@{name}" for name in TRAINED[study]} | own


def test_nothing_of_a_finished_neighbour_runs_again_and_the_main_study_knows_of_none(neighbours):
    everything = ["dvc.yaml", *(f"stages/{study}/dvc.yaml" for study in STUDIES)]
    assert stages_run(neighbours.run("dvc", "repro", *everything)) == ALWAYS
    assert {name for name in neighbours.first_run if ":" not in name} == ALWAYS


def test_a_study_builds_on_the_main_one_alone(committed):
    """But for the report on them all."""
    with Repo(str(committed)) as repo:
        graph = repo.index.graph
        found = {stage.path_in_repo: set() for stage in graph}
        for stage in graph:
            found[stage.path_in_repo] |= {needed.path_in_repo for needed in nx.descendants(graph, stage)}
    assert found.pop("stages/neighbours/dvc.yaml") > {f"stages/{study}/dvc.yaml" for study in TRAINED}
    assert len(found) > len(TRAINED)
    assert all(needed <= {"dvc.yaml", own} for own, needed in found.items())


@pytest.mark.parametrize("study", TINY)
def test_metrics_have_the_main_studys_keys_and_costs(neighbours, study):
    main = neighbours.read_json("metrics/train/frn-clip.json")
    for name in TRAINED[study]:
        own = neighbours.read_json(f"metrics/{study}/train/{name}.json")
        shared = {key for key in main if not key.startswith("test_accuracy_seed")}
        assert shared | {"parameters", "multiply_adds"} <= own.keys()


@pytest.mark.parametrize("study", REPORTED)
def test_the_summary_repeats_the_test_accuracies(neighbours, study):
    summary = neighbours.read_json(f"metrics/{study}/summary.json")
    for name in TRAINED[study]:
        own = neighbours.read_json(f"metrics/{study}/train/{name}.json")
        assert summary[f"test_accuracy_{name}"] == own["test_accuracy"]
    contrasts = pd.read_csv(neighbours.folder / f"plots/{study}/contrasts.csv", dtype={"variant": str})
    first, *others = TRAINED[study]
    assert contrasts["variant"].tolist() == others
    for row in contrasts.itertuples():
        points = 100 * (summary[f"test_accuracy_{row.variant}"] - summary[f"test_accuracy_{first}"])
        assert row.difference == pytest.approx(points, abs=1e-4)


def test_the_sweep_finds_the_best_learning_rates(neighbours):
    summary = neighbours.read_json("metrics/small_cnn_sweep/summary.json")
    found = {
        (norm, lr): neighbours.read_json(f"metrics/small_cnn_sweep/train/{norm}-16-{lr}.json")["val_accuracy"]
        for norm in ("groupnorm", "layernorm")
        for lr in ("0.001", "0.01")
    }
    for norm in ("groupnorm", "layernorm"):
        assert summary[f"val_accuracy_{norm}_16"] == max(found[norm, "0.001"], found[norm, "0.01"])
    worst = {lr: min(found["groupnorm", lr], found["layernorm", lr]) for lr in ("0.001", "0.01")}
    assert worst[f"{summary['common_lr_16']:g}"] == max(worst.values())
    table = pd.read_csv(neighbours.folder / "plots/small_cnn_sweep/sweep.csv")
    for row in table.itertuples():
        assert row.val_accuracy == found[row.norm, f"{row.lr:g}"]


def test_the_sweeps_figure_has_a_line_of_its_own_for_every_batch_size():
    sizes = [2, 4, 8, 16, 32, 64, 128, 256]
    rows = [("layernorm", size, lr, size * lr) for size in sizes for lr in (0.001, 0.01)]
    (axes,) = draw_sweep(pd.DataFrame(rows, columns=["norm", "batch_size", "lr", "val_accuracy"]), "caption").axes
    assert [line.get_label() for line in axes.lines] == [f"batches of {size}" for size in sizes]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[size * 0.001, size * 0.01] for size in sizes]
    assert len({tuple(line.get_color()) for line in axes.lines}) == len(sizes)


@pytest.mark.parametrize("study", TINY)
def test_a_checkpoint_and_the_stored_predictions_give_the_recorded_accuracy(neighbours, study):
    name = TRAINED[study][-1]
    own = neighbours.read_json(f"metrics/{study}/train/{name}.json")
    about = neighbours.read_json("data/stats.json")
    checkpoint = torch.load(neighbours.folder / f"models/{study}/{name}/seed0.pt", weights_only=True)
    make_network = {make.__name__: make for make in MAKE}[f"make_{checkpoint['network']}"]
    model = ImageClassifier(make_network(seed=0, **checkpoint["settings"]), about["mean"], about["std"]).eval()
    model.load_state_dict(checkpoint["state_dict"])
    with np.load(neighbours.folder / "data/cifar10.npz") as arrays, np.load(neighbours.folder / "data/split.npz") as at:
        images, labels = (arrays[f"test_{what}"][at["test"]] for what in ("images", "labels"))
    with torch.no_grad():
        found = model(torch.from_numpy(images)).argmax(1).numpy()
    assert abs((found == labels).mean() - own["test_accuracy_seed0"]) <= 2 / len(labels)  # products in bfloat16
    with np.load(neighbours.folder / f"data/{study}/{name}.npz") as stored:
        accuracy = (stored["probabilities"][0].argmax(1) == stored["labels"]).mean()
        np.testing.assert_array_equal(stored["labels"], labels)
    assert accuracy == own["test_accuracy_seed0"]


def test_one_more_variant_on_the_command_line_trains_one_network(neighbours, tmp_path):
    study, settings = neighbours.copy_to(tmp_path / "copy"), "+mobilenetv2.variants.gelu.activation=gelu"
    pipeline = "stages/mobilenetv2/dvc.yaml"
    for command in (["add", "--all"], ["commit", "--quiet", "--message", "neighbours"]):
        study.run("git", *command)
    output = study.run("dvc", "exp", "run", "-S", settings, pipeline)
    assert stages_run(output) == {f"{pipeline}:train@gelu", f"{pipeline}:report"} | ALWAYS
    assert "gelu" in pd.read_csv(study.folder / "plots/mobilenetv2/contrasts.csv")["variant"].tolist()
    checkpoint = torch.load(study.folder / "models/mobilenetv2/gelu/seed0.pt", weights_only=True)
    assert checkpoint["settings"] == {"activation": "gelu", "strides": "reduce_32"}
    study.set_params("mobilenetv2.variants.gelu.activation=silu")
    output = study.run("dvc", "repro", pipeline)
    assert stages_run(output) == {f"{pipeline}:train@gelu", f"{pipeline}:report"} | ALWAYS


def test_transfer_and_scratch_are_set_side_by_side(neighbours):
    summary = neighbours.read_json("metrics/baseline/comparison.json")
    for share in TRAINED["baseline"]:
        for way, folder in (("transfer", "transfer"), ("scratch", "train")):
            own = neighbours.read_json(f"metrics/baseline/{folder}/{share}.json")
            assert summary[f"test_accuracy_{way}_{share}"] == own["test_accuracy"]
    curves = pd.read_csv(neighbours.folder / "plots/baseline/transfer.csv")
    assert curves.groupby("percent")["images"].first().to_dict() == {50: 80, 100: 160}
    assert {path.name for path in (neighbours.folder / "plots/baseline/comparison").iterdir()} == {
        "bars.png",
        "curves.png",
        "shares.png",
    }


def test_more_blocks_train_on_a_cache_that_ends_earlier(neighbours):
    own = {"features@18", "features@16", "train@18", "train@16", "representations", "summary"}
    assert stages_of("unfreezing", neighbours.first_run) == own
    late, early = (neighbours.read_json(f"metrics/unfreezing/train/{block}.json") for block in (18, 16))
    assert early["multiply_adds"] > 2 * late["multiply_adds"] and early["parameters"] > late["parameters"]
    assert (late["stored_bytes"], early["stored_bytes"]) == (2 * 2 * 2 * 320, 2 * 2 * 2 * 160)
    about = neighbours.read_json("data/unfreezing/16/about.json")
    assert about["trainable_from"] == 16 and about["images"]["train_view0"] == 80 and about["images"]["val"] == 20
    assert about["images"]["train_eval"] == 25  # half of the main study's
    summary = neighbours.read_json("metrics/unfreezing/summary.json")
    assert summary["test_accuracy_16"] == early["test_accuracy"]
    figures = {path.name for path in (neighbours.folder / "plots/unfreezing").glob("*/*.png")}
    assert figures == {"costs.png", "curves.png", "maps.png", "embedding.png", "similarity.png"}


def test_the_whole_fine_tuned_network_gives_the_recorded_accuracy_from_images(neighbours):
    """Without the cache: torchvision's blocks with the trained ones in their place, then pooling and the head."""
    checkpoint = torch.load(neighbours.folder / "models/unfreezing/16/seed0.pt", weights_only=True)
    backbone = torch.load(neighbours.folder / "models/backbone.pt", weights_only=True)
    about = neighbours.read_json("data/unfreezing/16/about.json")
    state = replace_blocks(backbone, checkpoint["state_dict"])
    network = Trunk(state, about["image_size"], about["mean"], about["std"], about["padding"], 19)
    head = rebuild_model(checkpoint, backbone).head
    with np.load(neighbours.folder / "data/cifar10.npz") as arrays, np.load(neighbours.folder / "data/split.npz") as at:
        images, labels = (arrays[f"test_{what}"][at["test"]] for what in ("images", "labels"))
    with torch.no_grad():
        found = head(network(torch.from_numpy(images)).mean((1, 2))).argmax(1).numpy()
    recorded = neighbours.read_json("metrics/unfreezing/train/16.json")["test_accuracy_seed0"]
    assert abs((found == labels).mean() - recorded) <= 2 / len(labels)  # features are stored as float16
    changed = neighbours.read_json("metrics/unfreezing/representations.json")
    assert all(0.5 < changed[f"cka_features.{block}"] < 1 for block in (16, 17, 18))


def test_the_report_repeats_the_results(neighbours):
    assert stages_of("neighbours", neighbours.first_run) == {"document"}
    pages = pypdf.PdfReader(neighbours.folder / "plots/documents/neighbours.pdf").pages
    text = " ".join(" ".join(page.extract_text() for page in pages).split())
    for study, names in TRAINED.items():
        for name in names if study in REPORTED else []:
            own = neighbours.read_json(f"metrics/{study}/train/{name}.json")
            assert percent(own, "test_accuracy") in text
    assert all(f"Figure {number}:" in text for number in range(1, 16))


def test_figures_are_drawn_for_every_study(neighbours):
    assert (neighbours.folder / "plots/small_cnn_sweep/sweep.png").exists()
    for study in REPORTED:
        names = TRAINED[study]
        folder = neighbours.folder / "plots" / study / "figures"
        frontier = {"frontier.png"} if study == "mobilenetv2" else set()  # the others' variants cost the same
        assert {"curves.png", "accuracy.png"} | frontier | {f"wrong_{n}.png" for n in names} == {
            path.name for path in folder.iterdir()
        }


@pytest.mark.parametrize(
    ("arguments", "overrides", "message"),
    [
        (["small_cnn.train", "frn"], [], "'frn' is no variant of small_cnn; params.yaml lists batchnorm, "),
        (["small_cnn.train", "groupnorm"], ["small_cnn.batch_size=1000"], "only 160 training images"),
        (["small_cnn.train", "groupnorm"], ["small_cnn.schedule=linear"], "one of constant, one_cycle"),
        (
            ["mobilenetv2.train", "own"],
            ["+mobilenetv2.variants.own.activation=swish"],
            "own.activation is 'swish'; it ",
        ),
        (["unfreezing.features", "9"], [], "'9' is no block of this study; params.yaml lists 18, 17, 16, 14"),
        (["unfreezing.features", "18"], ["unfreezing.trainable_from=[2]"], "integers from 3 to 18"),
        (["unfreezing.train", "14"], [], "data/unfreezing/14 holds no features"),
    ],
)
def test_bad_input_gets_one_message(other_params, arguments, overrides, message):
    other_params.set_params(*overrides)
    output = other_params.stage(*arguments, fails=True)
    assert message in output and "Traceback" not in output
