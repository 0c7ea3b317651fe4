import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from dvc.utils.hydra import apply_overrides
from filelock import FileLock

from stages.core.device import has_bfloat16
from stages.core.params import load_params
from stages.tools.checkout import copy_working_tree, is_source

ROOT = Path(__file__).parent.parent
STUDIED = load_params(ROOT / "params.yaml").norms
ALWAYS = {"environment", "code"}  # the stages that record what DVC cannot see
needs_bfloat16 = pytest.mark.skipif(
    not has_bfloat16(torch.device("cpu")), reason="this processor emulates bfloat16: slow, and rounded otherwise"
)
TINY = [
    "data.images=200",
    "backbone.image_size=64",
    "features.views=2",
    "features.train_eval_images=50",
    "train.epochs=3",
    "train.batch_size=16",
    "seeds=[0,1]",
    "landscape.points=5",
    "gradients.batch_size=16",
    "gradients.batches=5",
    "curvature.images=40",
    "curvature.probes=2",
    "curvature.lanczos_steps=8",
    "curvature.pairs=2",
    "curvature.grid_images=20",
    "curvature.grid_points=3",
]


DEAREST = ("test_neighbours.py", "test_changing_things.py", "test_pipeline.py", "test_stages.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no worker is left with one of them when the other has finished."""
    items.sort(key=lambda item: item.path.name not in DEAREST)


@functools.cache
def committed_files() -> Path:
    """What git has, or is about to commit, in a folder of its own: results that a user has just made are no fault.

    Where there is no git, as in an unpacked archive, the files as they lie.
    """
    if not (ROOT / ".git").exists():
        return ROOT
    folder = tempfile.TemporaryDirectory(prefix="committed-")
    committed_files.cleanup = folder.cleanup  # when the session ends
    subprocess.run(["git", "checkout-index", "--all", f"--prefix={folder.name}/"], cwd=ROOT, check=True)
    Path(folder.name, ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    return Path(folder.name)


@pytest.fixture(scope="session")
def committed() -> Path:
    return committed_files()


@functools.cache
def find_forking_programs() -> str:
    """A folder with programs `python` and `dvc`: forks of a process that has torch and DVC imported, and ends with us.

    A stage or a command of DVC starts so in a tenth of a second, where importing alone would take two.
    """
    program = f"from stages.tools.preloaded import LIBRARIES, main; main({TELL_AND_WAIT}, [*LIBRARIES, *{LIKEWISE}])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=os.environ | ENVIRONMENT, **pipes)
    find_forking_programs.server = server  # it ends when its standard input is closed
    folder = server.stdout.readline().strip()
    if sys.platform == "linux":
        Path(folder, "dvc").write_text('#!/bin/sh\nexec "${0%/*}/python" -m dvc "$@"\n')
        Path(folder, "dvc").chmod(0o700)
    return folder


TELL_AND_WAIT = ["sh", "-c", "echo ${PATH%%:*} && exec cat"]
LIKEWISE = """dvc.cli.parser dvc.repo.reproduce dvc.repo.status dvc.render.match jupytext nbclient nbconvert
    sklearn.manifold statsmodels.stats.api tests.quick_locks""".split()
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.org",
    "OMP_NUM_THREADS": "2",  # rounding depends on it
}


class Checkout:
    """A temporary copy of the repository, with a git history of its own, that tests may run and break."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = os.environ | ENVIRONMENT

    def start(self, *command: str, **kwargs) -> subprocess.Popen:
        """A command in a process of its own, as a user starts it."""
        given = {"env": self.environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | kwargs
        return subprocess.Popen(command, cwd=self.folder, **given)

    def run(self, *command: str, fails: bool = False) -> str:
        """The output of a command that must succeed, or must fail. DVC and Python's modules are forked."""
        path = os.pathsep.join([find_forking_programs(), self.environment["PATH"]])
        process = self.start(*command, env=self.environment | {"PATH": path})
        output, _ = process.communicate()
        assert bool(process.returncode) == fails, output
        return output

    def stage(self, *arguments: str, fails: bool = False) -> str:
        name, *rest = arguments
        return self.run("python", "-m", f"stages.{name}", *rest, fails=fails)

    def set_params(self, *overrides: str) -> None:
        path = self.folder / "params.yaml"
        apply_overrides(path, list(overrides))

    def read_json(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())

    def copy_to(self, folder: Path) -> "Checkout":
        """A second checkout in the same state; what DVC has linked to its cache, and never changes, is not copied."""
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=copy_or_link)
        return Checkout(folder)


def copy_or_link(source: str, target: str) -> None:
    (os.link if ".dvc/cache/" in source or os.stat(source).st_nlink > 1 else shutil.copy2)(source, target)


def copy_repository(folder: Path) -> Checkout:
    """The files that git would take, committed anew; of results and their locks, one side study's alone."""

    def is_wanted(name: str) -> bool:
        return "cache_study" in name or (is_source(name) and not name.endswith("dvc.lock"))

    copy_working_tree(ROOT, folder, is_wanted)
    checkout = Checkout(folder)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "start"]):
        checkout.run("git", *command)
    return checkout


def make_tiny(folder: Path) -> Checkout:
    checkout = copy_repository(folder)
    checkout.set_params(*TINY)
    (folder.parent / "output").write_text(checkout.run("dvc", "repro"))
    checkout.run("git", "add", "--all")
    checkout.run("git", "commit", "--quiet", "--message", "results")
    return checkout


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Checkout:
    """The whole study on 200 real images, run once by `dvc repro`, for all workers; tests must leave it as it is."""
    own = tmp_path_factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tiny"
    with FileLock(f"{place}.lock"):
        made = (place / "made").exists()
        checkout = Checkout(place / "study") if made else make_tiny(place / "study")
        (place / "made").touch()
    checkout.first_output = (place / "output").read_text()
    return checkout


@pytest.fixture
def scratch_copy(tiny, tmp_path) -> Checkout:
    """A copy of the finished tiny study that a test may change."""
    return tiny.copy_to(tmp_path / "copy")


@pytest.fixture(scope="module")
def shared_copy(tiny, tmp_path_factory) -> Checkout:
    return tiny.copy_to(tmp_path_factory.mktemp("shared") / "copy")


@pytest.fixture
def other_params(shared_copy) -> Iterator[Checkout]:
    """A copy of the finished tiny study of which a test changes params.yaml alone; the next one finds it as it was."""
    path = shared_copy.folder / "params.yaml"
    original = path.read_bytes()
    yield shared_copy
    path.write_bytes(original)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def backbone_state() -> dict:
    """A randomly initialised MobileNetV2, its BN statistics away from 0 and 1."""
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    features = mobilenet_v2(weights=None).features
    for module in features.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    return features.state_dict()
