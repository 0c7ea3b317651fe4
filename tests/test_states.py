import os
import sys

import pytest

from stages.core import fingerprints
from stages.core.states import KEPT, identify, kept_states

LOOP = "def train(x):\n    return x + 1\n"


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A function of a package that stands where the study would, and the file that it comes from."""
    package = tmp_path / "stages"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "loop.py").write_text(LOOP)
    monkeypatch.chdir(tmp_path)
    train = type(sys)("loop")
    train.__module__, train.__name__ = "stages.loop", "train"
    return train, package / "loop.py"


def test_the_identity_depends_on_settings_inputs_code_and_torch(train, tmp_path, monkeypatch):
    (function, module), data = train, tmp_path / "features.npy"

    def find(clip=1.0):
        return identify({"clip": clip}, [data], [function])

    data.write_text("a")
    first = find()
    assert find() == first != find(clip=0.5)
    data.write_text("bb")
    assert find() != first
    data.write_text("a")
    module.write_text(LOOP.replace("1", "2"))
    assert find() != first
    module.write_text(LOOP + "\n\ndef draw():\n    return 3\n")
    assert find() == first, "what is drawn does not train"
    module.write_text("import torch\n\n\ndef train(x):\n    return torch.add(x, 1)\n")
    with_torch = find()
    monkeypatch.setattr(fingerprints, "version", lambda name: "2.99.0")
    assert find() != with_torch


def test_states_of_the_last_used_settings_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def use(number, age):
        with kept_states("train/frn-clip", "training", number, [], []) as folder:
            (folder / "seed0.pt").write_text(str(number))
        os.utime(folder, (age, age))

    for number in range(KEPT):
        use(number, age=100 + number)
    use(0, age=500)
    use(KEPT, age=600)
    kept = [path.read_text() for path in (tmp_path / ".scratch/train/frn-clip").rglob("seed0.pt")]
    assert sorted(kept, key=int) == [str(number) for number in [0, *range(2, KEPT + 1)]]
