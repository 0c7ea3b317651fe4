"""Which stages another value of a list makes stale, by DVC's own reading of the pipelines."""

import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from tests.conftest import ROOT

PIPELINES = [path.relative_to(ROOT) for path in [ROOT / "dvc.yaml", *sorted(ROOT.glob("stages/*/dvc.yaml"))]]
MAIN = {"curvature_summary", "document", "errors", "notebook", "report", "statistics"}
REPORT = "neighbours: document"

# A list that is compared, the stages that its last entry has, and those that work on the whole list.
LISTS = {
    "norms": (
        {
            f"{stage}@frn-{mode}"
            for stage in ("train", "landscape", "gradients", "curvature", "predictions")
            for mode in ("noclip", "clip")
        },
        MAIN
        | {f"variants: train@{study}" for study in ("thresholds", "batch_sizes", "placements")}
        | {"cache_study: precision"},
    ),
    "variants.thresholds": (set(), {"variants: train@thresholds", REPORT}),
    "variants.batch_sizes": (set(), {"variants: train@batch_sizes", REPORT}),
    "variants.placements": (set(), {"variants: train@placements", REPORT}),
    "cache_study.views": (set(), {"cache_study: features", "cache_study: views"}),
    "baseline.percents": (
        {"baseline: train_images@100"},
        {"baseline: image_report", "baseline: transfer", "baseline: compare", REPORT},
    ),
    "unfreezing.trainable_from": (
        {"unfreezing: features@14", "unfreezing: train@14"},
        {"unfreezing: representations", "unfreezing: summary", REPORT},
    ),
    "small_cnn.norms": (
        {"small_cnn: train_images@layernorm"}
        | {
            f"small_cnn_sweep: train_images@layernorm-{size}-{lr}"
            for size in (16, 32, 64, 256)
            for lr in (0.003, 0.01, 0.03)
        },
        {"small_cnn: image_report", "small_cnn_sweep: sweep_report", REPORT},
    ),
    "small_cnn_sweep.batch_sizes": (
        {
            f"small_cnn_sweep: train_images@{norm}-256-{lr}"
            for norm in ("batchnorm", "groupnorm", "layernorm")
            for lr in (0.003, 0.01, 0.03)
        },
        {"small_cnn_sweep: sweep_report", REPORT},
    ),
    "small_cnn_sweep.lrs": (
        {
            f"small_cnn_sweep: train_images@{norm}-{size}-0.03"
            for norm in ("batchnorm", "groupnorm", "layernorm")
            for size in (16, 32, 64, 256)
        },
        {"small_cnn_sweep: sweep_report", REPORT},
    ),
    "mobilenetv2.variants": (
        {"mobilenetv2: train_images@silu_expansion_10_se"},
        {"mobilenetv2: image_report", REPORT},
    ),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The pipelines and params.yaml alone, as a project of DVC."""
    folder = tmp_path_factory.mktemp("pipelines")
    for path in (*PIPELINES, Path("params.yaml")):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    Repo.init(folder, no_scm=True).close()
    return folder


def resolve(project: Path) -> dict[str, tuple]:
    """What DVC compares of every stage but its files: command and parameters, by pipeline and name."""
    stages = {}
    with Repo(project) as repo:
        for pipeline in PIPELINES:
            study = pipeline.parent.name
            for stage in repo.stage.load_all(str(project / pipeline)):
                tracked = [dep.read_params() for dep in stage.deps if hasattr(dep, "read_params")]
                stages[f"{study}: {stage.name}" if study else stage.name] = stage.cmd, tracked
    return stages


@pytest.fixture(scope="module")
def committed(project) -> dict[str, tuple]:
    return resolve(project)


def read(key: str) -> list:
    value = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for name in key.split("."):
        value = value[name]
    return value


@pytest.mark.parametrize("key", LISTS)
def test_one_more_or_one_fewer_concerns_that_one_and_the_summaries(project, committed, key):
    own, summaries = LISTS[key]
    path, shorter = project / "params.yaml", read(key)[:-1]
    apply_overrides(path, [f"{key}=[{','.join(map(str, shorter))}]"])
    found = resolve(project)
    shutil.copy(ROOT / "params.yaml", path)
    assert committed.keys() - found.keys() == own and found.keys() <= committed.keys()
    assert {name for name in found if found[name] != committed[name]} == summaries
