"""What DVC's users rely on: dependencies, staleness, the run-cache, experiments, metrics and plots."""

import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from ruamel.yaml import YAML

from stages.code import CODE, find_fingerprints
from stages.core.files import file_sha256, write_json
from stages.core.fingerprints import Reach
from stages.core.params import load_params
from tests.conftest import ALWAYS, ROOT, Checkout

KEYS = [f"{norm}-{mode}" for norm in ("batchnorm", "layernorm", "frn") for mode in ("noclip", "clip")]
CLIPPED = [key for key in KEYS if key.endswith("-clip")]
SEEDS = ["test_accuracy_seed0", "test_accuracy_seed1"]


@functools.cache
def load_stages():
    """Every stage of every pipeline, by the pipeline's folder and its name, such as stages/small_cnn train."""
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


def code_of(stage: dict) -> list[str]:
    """The keys of metrics/code.json that a stage depends on."""
    files = [entry for entry in stage.get("params", []) if isinstance(entry, dict)]
    return [key for entry in files for key in entry.get(CODE, [])]


@pytest.mark.parametrize("name", load_stages())
def test_every_stage_depends_on_what_its_code_does(name):
    """On the record of its own script, and on that of norms where it reaches one: they are looked up by their names."""
    stage = load_stages()[name]
    if name.split()[1] in ALWAYS:
        return
    reach = Reach(ROOT)
    reach.run(module_of(stage))
    keys = code_of(stage)
    assert keys[0] == module_of(stage).removeprefix("stages.")
    assert ("stages.models.norms", "load_norm") not in reach.pieces or any(key.startswith("norms.") for key in keys)
    assert not [dep for dep in stage.get("deps", []) if dep.endswith(".py") and dep != "stages/analysis.py"]


def test_the_committed_fingerprints_are_those_of_the_code(committed):
    found = find_fingerprints(load_params(committed / "params.yaml").norms, committed)
    assert json.loads((committed / CODE).read_text()) == found


def test_every_stage_is_described_and_named_like_its_script():
    for name, stage in load_stages().items():
        assert stage["desc"] and module_of(stage).split(".")[-1] == name.split()[1]


# Pipeline -> how its results are checked, and the precision of the machine that they come from. Where the features come
# from another machine than the main study's, whose bits differ, the main study counts as changed: each stage is then
# checked by itself.
COMMITTED = {
    "dvc.yaml": ([], "bfloat16"),
    "stages/cache_study/dvc.yaml": ([], "bfloat16"),
    "stages/baseline/dvc.yaml": (["--single-item"], "float32"),
    "stages/variants/dvc.yaml": (["--single-item"], "float32"),
    "stages/unfreezing/dvc.yaml": ([], "float32"),
    "stages/small_cnn/dvc.yaml": ([], "float32"),
    "stages/small_cnn_sweep/dvc.yaml": ([], "float32"),
    "stages/mobilenetv2/dvc.yaml": ([], "float32"),
    "stages/neighbours/dvc.yaml": (["--single-item"], "float32"),
}


@contextmanager
def computed_in(folder: Path, precision: str) -> Iterator[None]:
    """As if `environment`, which a dry run does not run, had been at the machine that the results come from."""
    path = folder / "metrics/environment.json"
    recorded = path.read_bytes()
    found = json.loads(recorded)
    own = {section: precision for section in found["precision"] if section != "mobilenetv2"}
    try:
        write_json(path, found | {"precision": found["precision"] | own})
        yield
    finally:
        path.write_bytes(recorded)


@pytest.mark.parametrize(("pipeline", "options", "precision"), [(name, *how) for name, how in COMMITTED.items()])
def test_the_lock_file_agrees_with_the_code(committed, pipeline, options, precision):
    """A committed result belongs to the committed code and parameters."""
    with computed_in(committed, precision):
        output = Checkout(committed).run("dvc", "repro", "--dry", "--allow-missing", *options, pipeline)
    assert stages_run(output) <= ALWAYS, output
    assert "didn't change, skipping" in output


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
    assert stages_run(output) == ALWAYS


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


def find_changed(checkout: Checkout, path: str) -> set[str]:
    """The stages that `dvc status` calls changed because of this file; of `environment` it says "always changed"."""
    status = json.loads(checkout.run("dvc", "status", "--json", "dvc.yaml"))
    found = [(name, reason) for name, reasons in status.items() for reason in reasons if isinstance(reason, dict)]
    return {name for name, reason in found if path in reason.get("changed deps", {})}


def test_a_second_repro_runs_nothing_but_the_look_at_the_environment(tiny, scratch_copy):
    assert len(stages_run(tiny.first_output)) == 35
    assert stages_run(scratch_copy.run("dvc", "repro")) == ALWAYS
    assert scratch_copy.run("git", "status", "--porcelain") == ""


def test_stages_start_with_the_environments_python_where_it_is_not_activated(scratch_copy):
    """`.venv/bin/dvc repro` with no `python` in the PATH."""
    program = Path(sys.executable).with_name("dvc")
    done = subprocess.run(
        [program, "repro", "environment"],
        cwd=scratch_copy.folder,
        env=scratch_copy.environment | {"PATH": "/nowhere"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "torch" in done.stdout, done.stdout + done.stderr


def test_another_device_or_precision_makes_what_they_decide_stale(scratch_copy):
    """The environment is recorded; where it is another one the next time, what was computed before does not count."""
    path = scratch_copy.folder / "metrics/environment.json"
    found = scratch_copy.read_json("metrics/environment.json")
    assert found["torch"] == version("torch") and found["device"] in ("cpu", "cuda", "mps")
    assert found["precision"]["train"] in ("bfloat16", "float32")
    assert load_lock(scratch_copy.folder / "dvc.lock")["features"]["params"]["metrics/environment.json"] == {
        "device": found["device"],
        "precision.features": found["precision"]["features"],
    }
    computing = {"features"} | {f"{stage}@{key}" for stage in ("train", "gradients", "curvature") for key in KEYS}
    computing |= {f"landscape@{key}" for key in KEYS}
    for change, stale in (
        ({"device": "abacus"}, computing),
        ({"precision": found["precision"] | {"features": "float8"}}, {"features"}),
        ({"precision": found["precision"] | {"train": "float8"}}, {name for name in computing if "@" in name}),
        ({"weights_sha256": "of another file"}, {"backbone"}),
    ):
        write_json(path, found | change)
        changed = find_changed(scratch_copy, "metrics/environment.json")
        expected = stale - {name for name in stale if "precision" in change and name.startswith("landscape")}
        assert changed == expected, change


def test_another_weights_file_under_the_same_path_is_noticed(scratch_copy):
    """Its content is no parameter, and no dependency that DVC could name."""
    weights = scratch_copy.folder / "own.pth"
    shutil.copy(scratch_copy.folder / "models/backbone.pt", weights)
    scratch_copy.set_params("backbone.weights=own.pth", "backbone.image_size=32")
    scratch_copy.run("dvc", "repro", "backbone")
    first = scratch_copy.read_json("models/backbone.json")["sha256"]
    assert stages_run(scratch_copy.run("dvc", "repro", "backbone")) == ALWAYS
    state = torch.load(weights, weights_only=True)
    torch.save(state | {"0.1.bias": state["0.1.bias"] + 1}, weights)
    assert stages_run(scratch_copy.run("dvc", "repro", "backbone")) == ALWAYS | {"backbone"}
    assert scratch_copy.read_json("models/backbone.json")["sha256"] == file_sha256(weights) != first


def test_one_more_seed_trains_one_seed(scratch_copy):
    """On two threads: on more, a third seed would leave the others fewer each, and so other rounding."""
    assert scratch_copy.environment["OMP_NUM_THREADS"] == "2"
    before = {name: scratch_copy.read_json("metrics/train/frn-clip.json")[name] for name in SEEDS}
    scratch_copy.set_params("seeds=[0,1,2]")
    output = scratch_copy.run("dvc", "repro", "--single-item", "train@frn-clip")
    assert set(re.findall(r"frn-clip seed (\d) epoch", output)) == {"2"}
    nothing = scratch_copy.copy_to(scratch_copy.folder.parent / "nothing")
    shutil.rmtree(nothing.folder / ".scratch")
    nothing.run("dvc", "repro", "--force", "--single-item", "train@frn-clip")
    files = [f"models/frn-clip/seed{seed}.pt" for seed in (0, 1, 2)]
    files += ["plots/curves/frn-clip.csv", "metrics/train/frn-clip.json", "data/predictions/frn-clip.npz"]
    for name in files:
        assert (scratch_copy.folder / name).read_bytes() == (nothing.folder / name).read_bytes(), name
    after = scratch_copy.read_json("metrics/train/frn-clip.json")
    assert {name: after[name] for name in SEEDS} == before


def test_an_experiment_with_another_threshold_concerns_the_clipped_half_and_comes_back_without_training(scratch_copy):
    before = scratch_copy.read_json("metrics/test_accuracy.json")
    output = scratch_copy.run("dvc", "exp", "run", "-S", "clip=0.5")
    stages = ("train", "landscape", "gradients", "curvature")
    followers = {f"{stage}@{key}" for stage in stages for key in CLIPPED}
    assert stages_run(output) == followers | ALWAYS | {
        "curvature_summary",
        "statistics",
        "errors",
        "report",
        "document",
        "notebook",
    }
    after = scratch_copy.read_json("metrics/test_accuracy.json")
    changed = {key for key in before if before[key] != after[key]}
    difference = json.loads(scratch_copy.run("dvc", "metrics", "diff", "--json"))
    assert set(difference.get("metrics/test_accuracy.json", {})) == changed <= set(CLIPPED)
    details = scratch_copy.run("dvc", "metrics", "diff", "--targets", *(f"metrics/train/{key}.json" for key in CLIPPED))
    assert "grad_norm_mean" in details, "what is no metric can still be compared by its name"

    scratch_copy.set_params("clip=1.0")
    output = scratch_copy.run("dvc", "repro")
    assert stages_run(output) == ALWAYS
    assert output.count("is cached - skipping run") == 18
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
def test_a_parameter_makes_its_own_stage_stale(other_params, override, first):
    other_params.set_params(override)
    changed = find_changed(other_params, "params.yaml") - {"document"}  # which prints the settings
    assert changed and all(name.startswith(first) for name in changed)


def test_the_plots_page_has_all_curves_and_figures(scratch_copy):
    output = scratch_copy.run("dvc", "plots", "show")
    assert "failed to load" not in output and "ERROR" not in output
    page = (scratch_copy.folder / "dvc_plots/index.html").read_text()
    for title in ("Validation accuracy", "Validation loss", "Training loss", "Gradient norm"):
        assert title in page
    # the overlays; losses, layers, ratios, eigenvalues and slices of every configuration; contrasts and correlations
    charts = 4 + 5 * 6 + 3
    specifications = re.findall(r"var spec = (.+);", page)
    assert len([spec for spec in specifications if spec != "{}"]) == charts  # a flat JSON file draws nothing
    pictures = 2 + 11 + 4 + 1 + 7  # of the data, the report, the errors, the contrasts and the curvature
    assert len(list((scratch_copy.folder / "dvc_plots/static").glob("*.png"))) == pictures
