import multiprocessing

import pytest

from stages.lib.files import StageError, fingerprint, locked, write


def test_a_failing_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")

    def save(temporary):
        temporary.write_text("half")
        raise RuntimeError("no more disk")

    with pytest.raises(RuntimeError):
        write(path, save)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_fingerprint_depends_on_settings_and_file_contents(tmp_path):
    path = tmp_path / "input"
    path.write_text("a")
    first = fingerprint({"clip": 1.0}, [path])
    assert fingerprint({"clip": 1.0}, [path]) == first
    assert fingerprint({"clip": 0.5}, [path]) != first
    path.write_text("b")
    assert fingerprint({"clip": 1.0}, [path]) != first


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
