import os
import subprocess
import sys
import types

import pytest

from stages.lib import states
from stages.lib.states import KEPT, digest_code, fingerprint, kept_states
from tests.conftest import ROOT


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the study that is imported beside the real ones."""
    path = tmp_path / "loop.py"
    path.write_text("def train(x):\n    return x + 1\n")
    imported = types.ModuleType("stages.lib.loop")
    imported.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "stages.lib.loop", imported)
    return path


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "features.npy"
    path.write_text("a")
    return path


def test_the_fingerprint_depends_on_settings_inputs_code_and_torch(module, data, monkeypatch):
    first = fingerprint({"clip": 1.0}, [data])
    assert fingerprint({"clip": 1.0}, [data]) == first
    assert fingerprint({"clip": 0.5}, [data]) != first
    data.write_text("b")
    assert fingerprint({"clip": 1.0}, [data]) != first
    data.write_text("a")
    module.write_text("def train(x):\n    return x + 2\n")
    assert fingerprint({"clip": 1.0}, [data]) != first
    module.write_text("def train(x):\n    return x + 1\n")
    assert fingerprint({"clip": 1.0}, [data]) == first
    monkeypatch.setattr(states, "version", lambda name: "2.99.0")
    assert fingerprint({"clip": 1.0}, [data]) != first


def test_the_fingerprint_depends_on_the_script_that_runs(tmp_path):
    """`python -m stages.train` imports no module of that name."""
    script = tmp_path / "stages/script.py"
    script.parent.mkdir()
    (tmp_path / "stages/__init__.py").touch()
    (tmp_path / "stages/lib").symlink_to(ROOT / "stages/lib")

    def run(number):
        text = f"from stages.lib.states import fingerprint\nVIEWS = {number}\nprint(fingerprint({{}}, []))\n"
        script.write_text(text)
        command = [sys.executable, "-m", "stages.script"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert run(1) == run(1) != run(2)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (
            '"""What it is."""\n\ndef train(x):  # one more\n    """Add one."""\n\n    return (x\n            + 1)\n',
            True,
        ),
        ("def train(x):\n    return x + 1.0\n", False),
        ("def train(x):\n    x = 'no docstring'\n    return x + 1\n", False),
        ("def train(x, y=1):\n    return x + 1\n", False),
    ],
)
def test_the_digest_of_code_is_that_of_what_it_does(module, text, same):
    before = digest_code(module)
    module.write_text(text)
    assert (digest_code(module) == before) is same


def test_states_of_the_last_used_settings_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def use(number, age):
        with kept_states("train/frn-clip", "training", number, []) as folder:
            (folder / "seed0.pt").write_text(str(number))
        os.utime(folder, (age, age))

    for number in range(KEPT):
        use(number, age=100 + number)
    use(0, age=500)
    use(KEPT, age=600)
    kept = [path.read_text() for path in (tmp_path / ".scratch/train/frn-clip").rglob("seed0.pt")]
    assert sorted(kept, key=int) == [str(number) for number in [0, *range(2, KEPT + 1)]]
