"""What DVC's users rely on: dependencies, staleness, the run-cache, experiments, metrics and plots."""

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, copy_repository

CLIPPED = ["batchnorm-clip", "layernorm-clip", "frn-clip"]


@functools.cache
def load_stages():
    """Every stage of every pipeline, by the pipeline's folder and its name, such as stages/small_cnn train_images."""
    stages = {}
    for path in [ROOT / "dvc.yaml", *sorted(ROOT.glob("stages/*/dvc.yaml"))]:
        for name, stage in YAML(typ="safe").load(path.read_text())["stages"].items():
            stages[f"{path.parent.relative_to(ROOT)} {name}"] = stage
    return stages


def module_of(stage: dict) -> str:
    """The module that a stage's command runs, such as stages.train."""
    python, m, module = stage["cmd"].split()[:3]
    assert (python, m) == ("python", "-m")
    return module


def imported_modules(path: Path) -> set[Path]:
    """The modules of this repository that a file imports, directly."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    paths = {Path(*name.split(".")).with_suffix(".py") for name in names if name.startswith("stages.")}
    return {path for path in paths if (ROOT / path).exists()}


def import_closure(path: Path) -> set[Path]:
    found, waiting = set(), {path}
    while waiting:
        current = waiting.pop()
        found.add(current)
        waiting |= imported_modules(current) - found
    return found


@pytest.mark.parametrize("name", load_stages())
def test_declared_python_dependencies_are_the_imports(name):
    """Of the stage's own script and of what else it runs, such as the notebook's source."""
    stage = load_stages()[name]
    declared = {Path(dep) for dep in stage["deps"] if dep.endswith(".py")}
    scripts = {path for path in declared if path.parent != Path("stages/lib")}
    assert Path(*module_of(stage).split(".")).with_suffix(".py") in scripts
    assert declared == set().union(*map(import_closure, scripts))


def test_every_stage_is_described_and_named_like_its_script():
    for name, stage in load_stages().items():
        assert stage["desc"] and module_of(stage).split(".")[-1] == name.split()[1]


def test_the_library_imports_no_stage():
    for path in (ROOT / "stages/lib").glob("*.py"):
        for module in imported_modules(path.relative_to(ROOT)):
            assert module.parts[:2] == ("stages", "lib"), f"{path} imports {module}"


# Pipeline -> how its results are checked. Where the features come from another machine than the main study's, whose
# bits differ, the main study counts as changed: each stage is then checked by itself.
COMMITTED = {
    "dvc.yaml": [],
    "stages/cache_study/dvc.yaml": [],
    "stages/baseline/dvc.yaml": ["--single-item"],
    "stages/variants/dvc.yaml": ["--single-item"],
    "stages/unfreezing/dvc.yaml": [],
    "stages/small_cnn/dvc.yaml": [],
    "stages/small_cnn_sweep/dvc.yaml": [],
    "stages/mobilenetv2/dvc.yaml": [],
    "stages/neighbours/dvc.yaml": ["--single-item"],
}


@pytest.mark.parametrize(("pipeline", "options"), COMMITTED.items())
def test_the_lock_file_agrees_with_the_code(pipeline, options):
    """A committed result belongs to the committed code and parameters."""
    dvc = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing", *options, pipeline]
    done = subprocess.run(dvc, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Running stage" not in done.stdout, done.stdout
    assert "up to date" in done.stdout


def test_the_reference_runs_lock_file_agrees_with_the_code(tmp_path):
    """Put where `make reference` ran it: in a checkout of its own with its own seeds."""
    checkout = copy_repository(tmp_path / "study")
    checkout.set_params(re.search(r"^REFERENCE := (.+)$", (ROOT / "Makefile").read_text(), re.M)[1])
    for folder in ("metrics", "plots"):
        shutil.copytree(ROOT / folder / "reference", checkout.folder / folder, dirs_exist_ok=True)
    (checkout.folder / "metrics/dvc.lock").rename(checkout.folder / "dvc.lock")
    output = checkout.run("dvc", "repro", "--dry", "--allow-missing")
    assert stages_run(output) == set() and "up to date" in output


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '(.+?)'", output))


def test_a_second_repro_runs_nothing(tiny):
    assert len(stages_run(tiny.first_output)) == 39
    output = tiny.run("dvc", "repro")
    assert stages_run(output) == set() and "up to date" in output


def test_another_threshold_concerns_the_clipped_half_alone_and_comes_back_without_training(scratch_copy):
    scratch_copy.set_params("clip=0.5")
    output = scratch_copy.run("dvc", "repro")
    stages = ("train", "landscape", "gradients", "curvature", "predictions")
    followers = {f"{stage}@{key}" for stage in stages for key in CLIPPED}
    assert stages_run(output) == followers | {
        "curvature_summary",
        "statistics",
        "errors",
        "report",
        "document",
        "notebook",
    }

    scratch_copy.set_params("clip=1.0")
    output = scratch_copy.run("dvc", "repro")
    assert stages_run(output) == set()
    assert output.count("is cached - skipping run") == 21
    assert scratch_copy.run("git", "status", "--porcelain", "metrics", "plots", "dvc.lock") == ""


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("train.dropout=0.4", "train@"),
        ("landscape.seed=1", "landscape@"),
        ("gradients.seed=1", "gradients@"),
        ("curvature.seed=1", "curvature@"),
        ("features.views=3", "features"),
        ("backbone.image_size=96", "backbone"),
        ("data.split_seed=1", "prepare"),
    ],
)
def test_a_parameter_makes_its_own_stage_stale(scratch_copy, override, first):
    scratch_copy.set_params(override)
    status = json.loads(scratch_copy.run("dvc", "status", "--json", "dvc.yaml"))
    changed = {
        name for name, reasons in status.items() for reason in reasons if "params.yaml" in reason["changed deps"]
    }
    changed -= {"document"}  # which prints the settings
    assert changed and all(name.startswith(first) for name in changed)


def test_an_experiment_and_its_metrics_diff(scratch_copy):
    before = scratch_copy.read_json("metrics/test_accuracy.json")
    output = scratch_copy.run("dvc", "exp", "run", "-S", "clip=0.5")
    assert {name for name in stages_run(output) if name.startswith("train")} == {f"train@{key}" for key in CLIPPED}
    after = scratch_copy.read_json("metrics/test_accuracy.json")
    changed = {key for key in before if before[key] != after[key]}
    difference = json.loads(scratch_copy.run("dvc", "metrics", "diff", "--json"))
    assert set(difference.get("metrics/test_accuracy.json", {})) == changed <= set(CLIPPED)
    details = scratch_copy.run("dvc", "metrics", "diff", "--targets", *(f"metrics/train/{key}.json" for key in CLIPPED))
    assert "grad_norm_mean" in details, "what is no metric can still be compared by its name"


def test_the_plots_page_has_all_curves_and_figures(tiny):
    output = tiny.run("dvc", "plots", "show")
    assert "failed to load" not in output and "ERROR" not in output
    page = (tiny.folder / "dvc_plots/index.html").read_text()
    for title in ("Validation accuracy", "Validation loss", "Training loss", "Gradient norm"):
        assert title in page
    # the overlays; losses, layers, ratios, eigenvalues and slices of every configuration; contrasts and correlations
    charts = 4 + 5 * 6 + 3
    specifications = re.findall(r"var spec = (.+);", page)
    assert len([spec for spec in specifications if spec != "{}"]) == charts  # a flat JSON file draws nothing
    pictures = 2 + 11 + 4 + 1 + 7  # of the data, the report, the errors, the contrasts and the curvature
    assert len(list((tiny.folder / "dvc_plots/static").glob("*.png"))) == pictures
