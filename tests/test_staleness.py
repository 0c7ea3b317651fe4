"""Only what is really stale runs: real edits of the code, by the records that stages depend on, and by DVC itself."""

import json
import shutil
from pathlib import Path

import pytest

from stages.code import CODE, find_fingerprints
from tests.conftest import ALWAYS, ROOT, STUDIED
from tests.test_pipeline import stages_run

TRAININGS = {"train", "cache_study.views", "unfreezing.train", "variants.train", "baseline.transfer"}
FROM_IMAGES = {f"{study}.train" for study in ("baseline", "small_cnn", "small_cnn_sweep", "mobilenetv2")}
NEW_NORM = """\
from torch import nn

from stages.models.norms import Norm, OverChannels


class Centred(OverChannels, nn.LayerNorm):
    pass


def make_layer(units: int, placement: str, frn_learned_eps: float) -> nn.Module:
    return Centred(units, bias=False)


NORM = Norm("Centred", "#56B4E9", make_layer, "x - mu", "mean over the units of one sample", None)
"""
EDITS = {  # name -> file, what is there, what takes its place, and the records that change
    "a docstring": ("training/loop.py", '"""One pass over the images', '"""A pass over the images', set()),
    "a comment": ("models/heads.py", "HIDDEN = 256\n", "HIDDEN = 256  # units\n", set()),
    "layout": ("core/files.py", "        save(temporary)", "        save(\n            temporary\n        )", set()),
    "an annotation": ("models/heads.py", "norm: nn.Module,", "norm,", set()),
    "a check of params.yaml": ("core/params.py", "lanczos_steps: integer(3)", "lanczos_steps: integer(4)", set()),
    "the training loop": (
        "training/loop.py",
        "run.optimizer.zero_grad()",
        "run.optimizer.zero_grad(set_to_none=False)",
        TRAININGS | FROM_IMAGES,
    ),
    "what trains on images alone": (
        "training/from_images.py",
        "gamma=0.1",
        "gamma=0.2",
        FROM_IMAGES | {"baseline.transfer"},
    ),
    "a figure": ("reporting/figures.py", "shares = (0.95, 0.98", "shares = (0.9, 0.98", {"report"}),
    "a sentence": ("reporting/wording.py", "has the highest mean", "has the largest mean", {"document", "analysis"}),
    "a norm's layer": (
        "models/norms/frn.py",
        "eps: float = 1e-6",
        "eps: float = 1e-5",
        {"norms.layer.frn", "norms.layers", "norms.file.frn", "norms.files", "variants.train"},
    ),
    "a norm's colour": ("models/norms/frn.py", "#009E73", "#009E74", {"norms.file.frn", "norms.files"}),
    "a network of one study": (
        "small_cnn/network.py",
        'Layer("C1", 20, 3)',
        'Layer("C1", 24, 3)',
        {"small_cnn.train", "small_cnn_sweep.train"},
    ),
    "a script": ("landscape.py", "betas = np.linspace", "betas = 2 * np.linspace", {"landscape"}),
    "how files are written": ("core/files.py", "indent=2", "indent=4", None),
}


def flatten(records: dict, prefix: str = "") -> dict[str, str]:
    nested = (flatten(v, f"{prefix}{k}.") if isinstance(v, dict) else {prefix + k: v} for k, v in records.items())
    return {name: value for part in nested for name, value in part.items()}


def find_records(root: Path) -> dict[str, str]:
    return flatten(find_fingerprints(STUDIED, root))


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("code")
    shutil.copytree(ROOT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    return root, find_records(root)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_the_records_of_those_who_reach_it(code, name):
    root, before = code
    file, old, new, expected = EDITS[name]
    path = root / "stages" / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    after = find_records(root)
    path.write_text(text)
    changed = {record for record in before if after[record] != before[record]}
    if expected is None:  # nearly everybody's
        assert len(changed) > len([name for name in before if not name.startswith("norms.")]) - 3
    else:
        assert changed == expected
    assert find_records(root) == before, "an undone edit brings every record back"


def edit(checkout, file: str, old: str, new: str) -> None:
    path = checkout.folder / "stages" / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_dvc_runs_what_an_edit_concerns_and_nothing_where_it_is_undone(scratch_copy):
    edit(scratch_copy, "training/loop.py", '"""One pass over the images', '"""A pass over the images')
    assert stages_run(scratch_copy.run("dvc", "repro")) == ALWAYS
    assert scratch_copy.run("git", "status", "--porcelain", "metrics", "plots", "dvc.lock") == ""

    edit(scratch_copy, "reporting/figures.py", "shares = (0.95, 0.98", "shares = (0.9, 0.98")
    assert stages_run(scratch_copy.run("dvc", "repro")) == ALWAYS | {"report", "document", "notebook"}

    edit(scratch_copy, "reporting/figures.py", "shares = (0.9, 0.98", "shares = (0.95, 0.98")
    edit(scratch_copy, "training/loop.py", "losses, correct = [], []", "correct, losses = [], []")
    output = scratch_copy.run("dvc", "repro")
    trainings = {f"train@{norm}-{mode}" for norm in STUDIED for mode in ("noclip", "clip")}
    assert stages_run(output) == ALWAYS | trainings, "the same results: their followers are not concerned"

    edit(scratch_copy, "training/loop.py", "correct, losses = [], []", "losses, correct = [], []")
    assert stages_run(scratch_copy.run("dvc", "repro")) == ALWAYS
    assert scratch_copy.run("git", "status", "--porcelain", "metrics", "plots", "dvc.lock") == ""


def test_a_new_norm_runs_its_own_trainings_and_the_summaries(scratch_copy):
    """One file, found by its name: everything that names norms follows params.yaml."""
    (scratch_copy.folder / "stages/models/norms/centred.py").write_text(NEW_NORM)
    scratch_copy.set_params("norms=[batchnorm,layernorm,frn,centred]")
    output = scratch_copy.run("dvc", "repro")
    own = {
        f"{stage}@centred-{mode}"
        for stage in ("train", "landscape", "gradients", "curvature")
        for mode in ("noclip", "clip")
    }
    summaries = {"curvature_summary", "statistics", "errors", "report", "document", "notebook"}
    assert stages_run(output) == ALWAYS | own | summaries
    table = (scratch_copy.folder / "plots/curves.csv").read_text()
    assert '"Centred, no clipping",#56b4e9' in table and '"Centred, clipped"' in table
    assert "Centred" in json.dumps(json.loads((scratch_copy.folder / "plots/documents/analysis.ipynb").read_text()))
    assert "centred" in scratch_copy.read_json(CODE)["norms"]["layer"]
    page = scratch_copy.run("dvc", "plots", "show")
    assert "failed to load" not in page
