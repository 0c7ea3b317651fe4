"""Copies of the working tree, with and without git."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.tools.checkout import copy_working_tree, list_files
from tests.conftest import ROOT, Checkout, copy_repository
from tests.test_pipeline import load_stages

BIN = Path(sys.executable).parent
posix = pytest.mark.skipif(os.name != "posix", reason="make and a shell")


def write_files(folder, **contents):
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_the_listed_files_are_those_that_git_would_take():
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-per-directory=.gitignore"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this checkout is no git repository")
    there = {name for name in listed.split("\0") if (ROOT / name).is_file()}
    assert {name for name in list_files(ROOT) if not (ROOT / name).is_symlink()} == there


def test_a_copy_holds_sources_alone_wherever_it_lies(tmp_path):
    (tmp_path / ".git").mkdir()
    write_files(tmp_path, **{".git__config": "", "stages__a.py": "a", "dvc.lock": "", "stages__x__dvc.lock": ""})
    write_files(tmp_path, metrics__a="", plots__b__c="", data__x="", stages____pycache____a="", new__file="")
    write_files(
        tmp_path, **{".gitignore": "/made/\n__pycache__/\n", "data__.gitignore": "/*\n!/.gitignore\n", "made__x": ""}
    )
    (tmp_path / "stages/__pycache__").mkdir()
    (tmp_path / "stages/__pycache__/a.pyc").touch()
    expected = {".gitignore", "data/.gitignore", "stages/a.py", "stages/x/dvc.lock", "new/file"}
    for folder in (tmp_path / "copy", tmp_path / "made/copy"):
        copy_working_tree(tmp_path, folder)
        assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} >= expected
        assert not [p for p in folder.rglob("*") if p.name in ("metrics", "plots", ".git", "__pycache__", "made")]
        assert not (folder / "dvc.lock").exists() and not (folder / "data/x").exists()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Checkout:
    return copy_repository(tmp_path_factory.mktemp("repository") / "study")


def test_git_ignores_what_dvc_keeps_and_nothing_else(repository):
    """Every out of every pipeline, side studies too; the folders themselves are there in a fresh clone."""
    kept, tracked = set(), set()
    for stage in load_stages().values():
        for kind in ("outs", "metrics", "plots"):
            for out in stage.get(kind, []):
                (path, settings), *_ = out.items() if isinstance(out, dict) else [(out, {})]
                (tracked if settings.get("cache") is False else kept).add(path.split("$")[0] + "x" * ("$" in path))
    assert len(kept) > 15 and len(tracked) > 30
    command = ["git", "check-ignore", "--no-index", *sorted(kept | tracked)]
    assert set(repository.run(*command).split()) == kept
    assert repository.run("git", "ls-files", "data", "models").split() == ["data/.gitignore", "models/.gitignore"]


def test_a_stage_of_dvc_leaves_the_ignore_files_as_they_are(repository, tmp_path):
    copy = repository.copy_to(tmp_path / "copy")
    write = "python -c \"import pathlib; pathlib.Path('data/toy/a').mkdir(parents=True); open('models/toy', 'w')\""
    copy.run("dvc", "stage", "add", "--run", "--name", "toy", "--outs", "data/toy", "--outs", "models/toy", write)
    assert copy.run("git", "status", "--porcelain").split() == ["M", "dvc.yaml", "??", "dvc.lock"]


def test_dvc_copies_where_a_disk_allows_no_links(repository, tmp_path):
    copy = repository.copy_to(tmp_path / "copy")
    dvc = """
import os, sys
def refuse(*_, **__):
    raise OSError(95, "Operation not supported")
os.link = os.symlink = refuse
from dvc.cli import main
sys.exit(main(sys.argv[1:]))
"""
    copy.run("dvc", "config", "--local", "core.no_scm", "true")
    (copy.folder / "data/toy").write_text("content")
    copy.run(sys.executable, "-c", dvc, "add", "--quiet", "data/toy")
    assert (copy.folder / "data/toy").read_text() == "content" and not (copy.folder / "data/toy").is_symlink()


@pytest.fixture
def unpacked(tmp_path):
    """What a ZIP download brings, with packages that are installed already."""
    folder = tmp_path / "outer/study"
    copy_working_tree(ROOT, folder)
    os.utime(folder / "requirements.lock", (0, 0))
    write_files(folder, **{".venv__share__vega.js": ""})
    return Checkout(folder)


def says_no_scm(checkout):
    config = checkout.folder / ".dvc/config.local"
    return config.exists() and "no_scm = true" in config.read_text()


@posix
@pytest.mark.parametrize("where", ["no repository", "another repository", "no git installed"])
def test_without_a_repository_of_its_own_dvc_works_after_setup(unpacked, tmp_path, where):
    if where == "another repository":
        unpacked.run("git", "init", "--quiet", str(tmp_path / "outer"))
    if where == "no git installed":
        tools = tmp_path / "tools"
        tools.mkdir()
        for name in ("make", "bash", "sh", "grep", "mv", "sed"):
            (tools / name).symlink_to(shutil.which(name))
        unpacked.environment["PATH"] = f"{BIN}{os.pathsep}{tools}"
        assert shutil.which("git", path=unpacked.environment["PATH"]) is None
    unpacked.run("make", "setup")
    assert says_no_scm(unpacked)
    assert "Running stage 'prepare'" in unpacked.run("dvc", "repro", "--dry", "prepare")
    unpacked.run("python", "-m", "stages.tools.checkout", ".quick")
    assert (unpacked.folder / ".quick/dvc.yaml").exists() and not (unpacked.folder / ".quick/.quick").exists()


@posix
def test_a_download_that_becomes_a_repository_is_one_for_dvc_too(unpacked):
    unpacked.run("make", "setup")
    assert says_no_scm(unpacked)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "start"]):
        unpacked.run("git", *command)
    unpacked.run("make", "setup")
    assert not says_no_scm(unpacked)
    unpacked.run("dvc", "params", "diff")
    assert unpacked.run("git", "status", "--porcelain") == ""
