import ast
from importlib.metadata import packages_distributions

import pytest

from stages.core import fingerprints
from stages.core.files import StageError
from stages.core.fingerprints import find_distributions, fingerprint_definitions, fingerprint_script
from tests.conftest import ROOT

FILES = {
    "__init__.py": "",
    "core/__init__.py": "",
    "core/params.py": "LOW = 1\n\n\ndef load_params():\n    return LOW\n",
    "core/style.py": "import matplotlib\n\nSTYLE = {'font.size': 10}\nUNUSED = 1\nmatplotlib.rcParams.update(STYLE)\n",
    "core/tools.py": (
        "import numpy as np\n\nSCALE = 2\n\n\ndef scale(x):\n    return SCALE * np.abs(x)\n\n\n"
        "def half(x):\n    return x / 2\n"
    ),
    "core/words.py": "def say(x):\n    return str(x)\n\n\ndef shout(x):\n    return say(x).upper()\n",
    "script.py": (
        "from stages.core import words\nfrom stages.core.params import load_params\n"
        "from stages.core.style import UNUSED as _\nfrom stages.core.tools import scale\n\n\n"
        "def main(x: float) -> float:\n    return words.say(scale(x + load_params()))\n\n\n"
        "if __name__ == '__main__':\n    main(1)\n"
    ),
}


@pytest.fixture
def package(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "stages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def edit(package, name, old, new):
    path = package / "stages" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new", "same"),
    [
        ("script.py", "def main", "# what it does\ndef main", True),
        ("script.py", "    return", '    """What it does."""\n    return', True),
        ("script.py", "x: float) -> float", "x)", True),
        ("script.py", "words.say(scale(", "words.say(  \n        scale(", True),
        ("script.py", "x + load", "x - load", False),
        ("script.py", "main(1)", "main(2)", False),
        ("core/tools.py", "SCALE * np", "np", False),
        ("core/tools.py", "SCALE = 2", "SCALE = 3", False),
        ("core/tools.py", "x / 2", "x / 3", True),
        ("core/words.py", "str(x)", "repr(x)", False),
        ("core/words.py", "upper", "lower", True),
        ("core/style.py", "10}", "11}", False),
        ("core/style.py", "UNUSED = 1", "UNUSED = 2", True),
        ("core/params.py", "LOW = 1", "LOW = 0", True),
        ("core/__init__.py", "", "print(1)\n", False),
    ],
)
def test_what_is_reached_counts_and_nothing_else(package, name, old, new, same):
    """A definition that is used, however far away, and statements that importing runs; no layout, no checks."""
    before = fingerprint_script("stages.script", package)
    edit(package, name, old, new) if old else (package / "stages" / name).write_text(new)
    assert (fingerprint_script("stages.script", package) == before) is same


def test_undoing_an_edit_brings_the_fingerprint_back(package):
    before = fingerprint_script("stages.script", package)
    edit(package, "core/tools.py", "SCALE = 2", "SCALE = 3")
    edit(package, "core/tools.py", "SCALE = 3", "SCALE = 2")
    assert fingerprint_script("stages.script", package) == before


def test_releases_of_packages_that_are_reached_count(package, monkeypatch):
    def find():
        tools = [fingerprint_definitions(("stages.core.tools", name), root=package) for name in ("scale", "half")]
        return [fingerprint_script("stages.script", package), *tools]

    script, scale, half = find()
    monkeypatch.setattr(fingerprints, "version", lambda name: "0.1")
    new_script, new_scale, new_half = find()
    assert (new_script, new_scale) != (script, scale) and new_script != script and new_scale != scale
    assert new_half == half


def test_packages_belong_to_the_distributions_that_importlib_finds_for_them():
    """Of every package that a module here imports: none is missed, and none is taken for another of its name."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "stages").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    packages, expected = {name.split(".")[0] for name in names} - {"stages"}, packages_distributions()
    assert {"torch", "sklearn", "PIL", "ruamel", "json"} <= packages
    assert {name: set(find_distributions(name)) for name in packages} == {
        name: set(expected.get(name, ())) for name in packages
    }


def test_imports_that_could_hide_something_are_refused(package):
    edit(package, "script.py", "from stages.core import words", "import stages.core.words")
    with pytest.raises(StageError, match="write `from stages"):
        fingerprint_script("stages.script", package)
    edit(package, "script.py", "import stages.core.words", "from .core import words")
    with pytest.raises(StageError, match="no dots first"):
        fingerprint_script("stages.script", package)


def test_a_file_that_is_no_python_is_named(package):
    edit(package, "core/tools.py", "SCALE = 2", "SCALE = (2")
    with pytest.raises(StageError, match=r"tools\.py, line 3: '\(' was never closed"):
        fingerprint_script("stages.script", package)
