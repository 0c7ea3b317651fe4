"""What DVC's users rely on: dependencies, staleness, the run-cache, experiments, metrics and plots."""

import ast
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from ruamel.yaml import YAML

from tests.conftest import ROOT, Checkout

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
def test_the_lock_file_agrees_with_the_code(committed, pipeline, options):
    """A committed result belongs to the committed code and parameters."""
    dvc = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing", *options, pipeline]
    done = subprocess.run(dvc, cwd=committed, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Running stage" not in done.stdout, done.stdout
    assert "up to date" in done.stdout


@pytest.fixture(scope="module")
def reference_run(committed, tmp_path_factory) -> Checkout:
    """The committed reference run, put where `make reference` ran it: in a checkout of its own with its own seeds."""
    checkout = Checkout(tmp_path_factory.mktemp("reference") / "study")
    for name in (".dvc", "stages"):
        shutil.copytree(
            committed / name, checkout.folder / name, ignore=shutil.ignore_patterns("cache", "tmp", "*.lock")
        )
    for name in (".dvcignore", "dvc.yaml", "params.yaml"):
        shutil.copy(committed / name, checkout.folder)
    checkout.set_params(re.search(r"^REFERENCE := (.+)$", (committed / "Makefile").read_text(), re.M)[1])
    for folder in ("metrics", "plots"):
        shutil.copytree(committed / folder / "reference", checkout.folder / folder)
    (checkout.folder / "metrics/dvc.lock").rename(checkout.folder / "dvc.lock")
    return checkout


def test_the_reference_runs_lock_file_agrees_with_the_code(reference_run):
    output = reference_run.run("dvc", "repro", "--dry", "--allow-missing")
    assert stages_run(output) == set() and "up to date" in output


Hashes = dict[str, tuple[str, int]]  # path -> MD5, ending in .dir for a folder, and bytes


def load_lock(path: Path) -> dict[str, dict]:
    return YAML(typ="safe").load(path.read_text())["stages"]


def collect(stages: dict[str, dict], kind: str) -> Hashes:
    """What the stages of a lock file list as their `deps` or `outs`."""
    return {entry["path"]: (entry["md5"], entry["size"]) for stage in stages.values() for entry in stage.get(kind, [])}


def hash_folder(parts: Hashes, folder: str) -> tuple[str, int]:
    """What DVC records of a folder with these files; of folders in it the lock file says too little for an MD5."""
    own = {path.removeprefix(f"{folder}/"): found for path, found in parts.items() if path.startswith(f"{folder}/")}
    tree = Tree()
    for path, (md5, _) in own.items():
        tree.add(tuple(path.split("/")), None, HashInfo("md5", md5))
    tree.digest()
    whole = not any(md5.endswith(".dir") for md5, _ in own.values())
    return tree.hash_info.value if whole else "unknown", sum(size for _, size in own.values())


@functools.cache
def hash_files(root: Path) -> Hashes:
    """Of what git keeps where stages read and write."""
    files = [path for name in ("metrics", "plots", "stages") for path in (root / name).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(root)): (hashlib.md5(path.read_bytes()).hexdigest(), path.stat().st_size) for path in files
    }


def agree(recorded: tuple[str, int], found: tuple[str, int]) -> bool:
    return recorded[1] == found[1] and found[0] in (recorded[0], "unknown")


def find_disagreements(stages: dict[str, dict], made: Hashes, kept: Hashes) -> set[str]:
    """Paths of which a lock file's stages read, or git has of what they wrote, other bytes than were recorded.

    What is read was `made` by a stage, of this lock file or another, or is `kept` by git.
    """
    made = made | collect(stages, "outs")
    found = set()
    for stage in stages.values():  # of a path that several read, each has its own record
        for path, recorded in collect({"": stage}, "deps").items():
            folder = any(part.startswith(f"{path}/") for part in made)
            origin = made.get(path) or (hash_folder(made, path) if folder else kept.get(path, ("absent", 0)))
            if not agree(recorded, origin):
                found.add(path)
    for path, recorded in collect(stages, "outs").items():
        folder = any(part.startswith(f"{path}/") for part in kept)
        if (path in kept or folder) and not agree(recorded, kept.get(path) or hash_folder(kept, path)):
            found.add(path)
    return found


OTHER_MACHINES = {"stages/baseline/dvc.yaml": {"data/features"}, "stages/variants/dvc.yaml": {"data/features"}}


@pytest.mark.parametrize("pipeline", COMMITTED)
def test_what_a_stage_read_is_what_another_wrote_and_git_has(committed, pipeline):
    made: Hashes = {}
    for other in COMMITTED:
        made |= collect(load_lock((committed / other).with_suffix(".lock")), "outs")
    stages = load_lock((committed / pipeline).with_suffix(".lock"))
    assert find_disagreements(stages, made, hash_files(committed)) == OTHER_MACHINES.get(pipeline, set())


def test_what_a_stage_of_the_reference_run_read_is_what_another_wrote_and_git_has(reference_run):
    assert (
        find_disagreements(load_lock(reference_run.folder / "dvc.lock"), {}, hash_files(reference_run.folder)) == set()
    )


@pytest.mark.parametrize("kind", ["outs", "deps"])
@pytest.mark.parametrize(
    ("path", "read_as"),
    [
        ("data/predictions/frn-clip.npz", "data/predictions"),
        ("models/frn-clip", "models/frn-clip"),
        ("data/features", "data/features"),
        ("metrics/train/frn-clip.json", "metrics/train"),
        ("plots/figures", "plots/figures"),
    ],
)
def test_another_hash_in_the_lock_file_is_noticed(committed, path, read_as, kind):
    """DVC itself takes it for up to date where the file is missing."""
    stages, kept = load_lock(committed / "dvc.lock"), hash_files(committed)
    name = path if kind == "outs" else read_as
    entries = [entry for stage in stages.values() for entry in stage.get(kind, []) if entry["path"] == name]
    entries[-1]["md5"] = "0" * 32 + ".dir" * entries[-1]["md5"].endswith(".dir")
    assert read_as in find_disagreements(stages, {}, kept)


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '(.+?)'", output))


def test_a_second_repro_runs_nothing(tiny):
    assert len(stages_run(tiny.first_output)) == 39
    output = tiny.run("dvc", "repro")
    assert stages_run(output) == set() and "up to date" in output


def test_another_threshold_concerns_the_clipped_half_alone_and_comes_back_without_training(scratch_copy):
    scratch_copy.set_params("clip=0.5")
    output = scratch_copy.run_preloaded("dvc", "repro")
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
    output = scratch_copy.run_preloaded("dvc", "exp", "run", "-S", "clip=0.5")
    assert {name for name in stages_run(output) if name.startswith("train")} == {f"train@{key}" for key in CLIPPED}
    table = scratch_copy.run("dvc", "metrics", "diff")
    assert "metrics/train/batchnorm-clip.json" in table.replace("\\", "/")
    assert "noclip" not in table


def test_the_plots_page_has_all_curves_and_figures_and_needs_no_network(tiny):
    output = tiny.run("dvc", "plots", "show")
    assert "failed to load" not in output and "ERROR" not in output
    page = (tiny.folder / "dvc_plots/index.html").read_text()
    for title in ("Validation accuracy", "Validation loss", "Training loss", "Gradient norm"):
        assert title in page
    # the overlays; losses, layers, ratios, eigenvalues and slices of every configuration; contrasts and correlations
    charts = 4 + 5 * 6 + 3
    assert page.count("vegaEmbed(") == charts
    pictures = 2 + 11 + 4 + 1 + 7  # of the data, the report, the errors, the contrasts and the curvature
    assert len(list((tiny.folder / "dvc_plots/static").glob("*.png"))) == pictures
    assert (ROOT / ".venv/share/vega.js").exists(), "run `make setup`"
    assert '<script src="../.venv/share/vega.js">' in page
