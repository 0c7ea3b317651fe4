import errno
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest

from stages.core import files
from stages.core.files import StageError, locked, replace_folder, write, write_csv, write_json, write_text


def test_a_failing_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")

    def save(temporary):
        temporary.write_text("half")
        raise RuntimeError("no more disk")

    with pytest.raises(RuntimeError):
        write(path, save)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def hold(folder, ready, release):
    with locked(folder, "training of x"):
        ready.set()
        release.wait(30)


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ready, release = spawn.Event(), spawn.Event()
    process = spawn.Process(target=hold, args=(tmp_path, ready, release))
    process.start()
    assert ready.wait(60)
    with pytest.raises(StageError, match=f"training of x is already running in process {process.pid}"):
        with locked(tmp_path, "training of x"):
            pass
    process.kill()
    process.join()
    with locked(tmp_path, "training of x"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_file_system_knows_no_locks_a_second_process_is_refused_too(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    fork = multiprocessing.get_context("fork")  # whose processes have the same flock
    ready, release = fork.Event(), fork.Event()
    process = fork.Process(target=hold, args=(tmp_path, ready, release))
    process.start()
    assert ready.wait(60)
    with pytest.raises(StageError, match=f"training of x is already running in process {process.pid}"):
        with locked(tmp_path, "training of x"):
            pass
    process.kill()
    process.join()
    with locked(tmp_path, "training of x"):
        pass
    with locked(tmp_path, "training of x"):
        pass


def test_another_refusal_of_a_lock_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        with locked(tmp_path, "training of x"):
            pass


@pytest.fixture(params=["one disk", "two disks"])
def source(request, tmp_path):
    """A folder with new files, on the disk of `tmp_path` or on another."""
    if request.param == "one disk":
        folder = tmp_path / "scratch"
        folder.mkdir()
    else:
        shared = Path("/dev/shm")
        if not shared.exists() or shared.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is no second disk to try it on")
        folder = Path(tempfile.mkdtemp(dir=shared))
    (folder / "inner").mkdir()
    (folder / "inner/new").write_text("new")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


OLD, NEW = {"old": "old"}, {"inner/new": "new"}


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "data/features"
    folder.mkdir(parents=True)
    (folder / "old").write_text("old")
    return folder


def test_a_folder_takes_the_place_of_another(source, target):
    replace_folder(source, target)
    assert contents(target) == NEW and not source.exists() and list(target.parent.iterdir()) == [target]


def test_a_folder_may_have_nothing_to_replace(source, tmp_path):
    replace_folder(source, tmp_path / "data/features")
    assert contents(tmp_path / "data/features") == NEW and not source.exists()


def test_a_link_to_a_folder_stays_a_link(source, target, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(target)
    replace_folder(source, link)
    assert link.is_symlink() and contents(target) == NEW


def fail_at(monkeypatch, step):
    """Have the step-th change of the file system fail; returns the changes that were asked for."""
    done = []

    def wrap(module, name):
        real = getattr(module, name)

        def call(*arguments, **kwargs):
            if name == "rename" and Path(arguments[0]).stat().st_dev != Path(arguments[1]).parent.stat().st_dev:
                return real(*arguments, **kwargs)  # which fails by itself
            done.append(name)
            if len(done) == step:
                if name == "copytree":
                    real(arguments[0], arguments[1])
                    os.remove(next(path for path in Path(arguments[1]).rglob("*") if path.is_file()))
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **kwargs)

        monkeypatch.setattr(module, name, call)

    wrap(os, "rename")
    wrap(shutil, "copytree")
    wrap(shutil, "rmtree")
    return done


@pytest.mark.parametrize("step", range(1, 10))
def test_whatever_step_fails_nothing_is_lost_and_the_next_try_succeeds(source, target, monkeypatch, step):
    with monkeypatch.context() as patched:
        done = fail_at(patched, step)
        try:
            replace_folder(source, target)
        except StageError as error:
            assert "No space left on device; nothing is lost" in str(error) and len(done) >= step
        else:
            assert contents(target) == NEW and not source.exists()  # there was another way, or fewer steps
    assert contents(target) in (OLD, NEW)
    if contents(target) == OLD:
        assert contents(source) == NEW
        replace_folder(source, target)
        assert contents(target) == NEW and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_kill_at_any_step_leaves_the_old_files_or_the_new_ones_whole(source, target, step):
    def die(path):
        with pytest.MonkeyPatch.context() as patched:
            real, done = os.rename, []

            def rename(*arguments):
                real(*arguments)
                done.append(arguments)
                if len(done) == step:
                    os._exit(9)

            patched.setattr(os, "rename", rename)
            replace_folder(path, target)

    process = multiprocessing.get_context("fork").Process(target=die, args=(source,))
    process.start()
    process.join()
    kept = [contents(folder) for folder in target.parent.iterdir()]
    assert OLD in kept or contents(target) == NEW
    assert not target.exists() or contents(target) in (OLD, NEW)
    assert NEW in [*kept, contents(source)]


def test_the_same_bytes_are_written_on_every_system(tmp_path, monkeypatch):
    """Where lines end in two characters and text is not UTF-8 by itself, as on Windows."""
    monkeypatch.setattr(os, "linesep", "\r\n")
    monkeypatch.setattr(files.Path, "write_text", write_text_like_windows)
    write_text(tmp_path / "text", "±1\n")
    write_json(tmp_path / "json", {"a": 1})
    write_csv(tmp_path / "csv", pd.DataFrame({"a": [1.25], "name": ["±"]}))
    assert (tmp_path / "text").read_bytes() == "±1\n".encode()
    assert (tmp_path / "json").read_bytes() == b'{\n  "a": 1\n}\n'
    assert (tmp_path / "csv").read_bytes() == "a,name\n1.25,±\n".encode()


def write_text_like_windows(path, text, encoding="cp1252", errors=None, newline="\r\n"):
    with open(path, "w", encoding=encoding, errors=errors, newline=newline) as file:
        file.write(text)
