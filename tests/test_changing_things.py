"""What the front page offers to try, and what a user would combine: whole studies, tiny, plots and documents included.

Several changes are merged into each run. That results are right is tested elsewhere: these runs must end without an
error and must show what was asked for.
"""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pypdf
import pytest
import torch
from torchvision.models import mobilenet_v2

from tests.conftest import ROOT, TINY, Checkout, copy_repository
from tests.test_cifar10 import write_official_release

SMALL = [*TINY, "train.epochs=2", "landscape.points=3", "gradients.batches=2", "curvature.images=20"]
RUNS = {
    "as little as there can be": [
        "norms=[layernorm]",
        "seeds=[7]",
        "features.views=1",
        "train.batch_size=2",
        "train.block_bn_statistics=batch",
        "backbone.image_size=32",
        "backbone.trainable_from=3",
    ],
    "one norm on own data": [
        "norms=[frn]",
        "seeds=[0,1,2,3]",
        "clip=0.5",
        "device=cpu",
        "train.frn_learned_eps=1.0",
        "train.head_lr=3.0e-4",
        "features.normalization=backbone",
        "data.source={own data}",
    ],
    "two norms on own weights": [
        "norms=[batchnorm,frn]",
        "train.placement=spatial",
        "backbone.weights={own weights}",
        "backbone.image_size=64",
        "backbone.trainable_from=16",
    ],
}
SAID = {  # in the report
    "as little as there can be": [
        "2 configurations: 1 norm",
        "in 1 stored view.",
        "gradient norm at 1, with 1 seed each",
        "features[0:3]",
        "features.3 to features.18",
    ],
    "one norm on own data": ["FRN alone was studied", "gradient norm at 0.5, with 4 seeds each"],
    "two norms on own weights": ["4 configurations: 2 norms", "own.pth", "64 pixels", "at every position of the map"],
}
# What stands for an example that cannot run everywhere, or not in moments.
STAND_INS = {
    "backbone.weights=imagenet1k_v2": "backbone.weights={own weights}",
    "backbone.image_size=224": "backbone.image_size=64",
    "data.source=path/to/cifar-10-batches-py": "data.source={own data}",
}
NO_CHECKSUMS = "import torchvision.datasets.cifar as cifar\ncifar.check_integrity = lambda *_: True\n"


def list_examples() -> list[str]:
    """The settings in the table of the section, one or more per row, as name=value."""
    section = (ROOT / "README.md").read_text().split("\n## Changing things\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", section, re.M)[2:]
    examples = []
    for name, command in rows:
        found = re.findall(r"-S '?([\w.]+=[^'` ]+)", command)
        found += [f"{key}={value}" for key, value in re.findall(r"`([\w.]+): ([^`]+)`", command)]
        assert found, f"the row '{name}' has no example that could be run"
        examples += found
    return examples


def test_every_example_of_the_front_page_is_run():
    """A new row needs a run, or an entry in STAND_INS."""
    run = {setting for settings in RUNS.values() for setting in settings}
    assert [example for example in list_examples() if STAND_INS.get(example, example) not in run] == []
    assert len(list_examples()) >= 11


def make_weights(folder: Path, _: Path) -> str:
    """A .pth file as torch saves MobileNetV2, classifier included, from random weights."""
    torch.manual_seed(0)
    torch.save(mobilenet_v2(weights=None).state_dict(), folder / "own.pth")
    return str(folder / "own.pth")


def make_data(folder: Path, arrays: Path) -> str:
    """CIFAR-10 in the release's layout; its files' checksums, which torchvision knows, cannot be made again."""
    with np.load(arrays) as found:
        return str(write_official_release(folder, dict(found)))


def prepare_study(settings: list[str], folder: Path, tiny: Checkout) -> Checkout:
    """A tiny study with these settings, not yet run; what it has in common with `tiny` lies in DVC's cache."""
    (folder / "own").mkdir()
    (folder / "own/sitecustomize.py").write_text(NO_CHECKSUMS)
    own = {"{own weights}": make_weights, "{own data}": make_data}
    study = copy_repository(folder / "study")
    shutil.copytree(tiny.folder / ".dvc/cache", study.folder / ".dvc/cache", copy_function=os.link)
    for setting in [*SMALL, *settings]:
        name, value = setting.split("=")
        value = own[value](folder / "own", tiny.folder / "data/cifar10.npz") if value in own else value
        study.set_params(f"{name}={value}")
    return study


@pytest.mark.parametrize("name", RUNS)
def test_a_changed_study_runs_to_its_end_and_shows_what_was_asked_for(name, tmp_path, tiny):
    study = prepare_study(RUNS[name], tmp_path, tiny)
    path = {"PYTHONPATH": str(tmp_path / "own")}  # for the one stage that would check sums
    first, _ = (preparing := study.start("dvc", "repro", "prepare", env=study.environment | path)).communicate()
    assert preparing.returncode == 0, first
    output = first + study.run("dvc", "repro")
    assert "Running stage 'notebook'" in output and "Traceback" not in output and "Warning" not in output
    pdf = pypdf.PdfReader(study.folder / "plots/documents/report.pdf")
    text = " ".join(" ".join(page.extract_text() for page in pdf.pages).split())
    for phrase in SAID[name]:
        assert phrase in text, text
    output = study.run("dvc", "plots", "show")
    assert "failed to load" not in output and "ERROR" not in output
