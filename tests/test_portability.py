"""What keeps the stages from needing one system; none but Linux is at hand to try them on."""

import ast
import ctypes
import subprocess
import sys

import pytest

from stages.data import feature_extraction
from tests.conftest import ROOT

SOURCES = sorted(ROOT.glob("stages/**/*.py"))
SCRIPT = "analysis.py"  # a notebook's source, which runs when it is imported
TOOLS = "tools"  # what `make` runs, on systems that have it
IMPORTED = [path for path in SOURCES if path.name != SCRIPT and path.parent.name != TOOLS]
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in IMPORTED]

WITHOUT_POSIX = """
import builtins, importlib, os, signal, sys
ABSENT = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
sys.modules["fcntl"] = None  # for everyone: nothing that a stage imports may need it
real_import = builtins.__import__

def import_like_windows(name, globals=None, locals=None, fromlist=(), level=0):
    if (globals or {}).get("__name__", "").startswith("stages") and name.split(".")[0] in ABSENT:
        raise ModuleNotFoundError(f"No module named {name!r}, for {globals['__name__']}")
    return real_import(name, globals, locals, fromlist, level)

builtins.__import__ = import_like_windows
for owner, names in {os: ["sched_getaffinity", "pidfd_open"], signal: ["SIGKILL", "SIGALRM"]}.items():
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)
for module in sys.argv[1:]:
    importlib.import_module(module)
from stages.core.files import locked
from pathlib import Path
with locked(Path(sys.argv[0]).parent / "folder", "work"):
    pass
print("imported", len(sys.argv) - 1)
"""


def test_every_module_imports_and_locks_without_what_windows_lacks(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WITHOUT_POSIX}")
    done = subprocess.run([sys.executable, script, *MODULES], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [f"imported {len(MODULES)}"], done.stderr[-2000:]
    assert len(MODULES) > 80


def keywords_of(call: ast.Call) -> dict:
    return {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}


def find_text_faults(source: str) -> list[str]:
    """Calls whose bytes or meaning depend on the system: text without an encoding, lines without their end."""
    faults = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        own = isinstance(call.func, ast.Attribute)
        given = keywords_of(call)
        if name in ("read_text", "write_text") and own and given.get("encoding") != "utf-8":
            faults.append(f"{call.lineno}: {name} without encoding='utf-8'")
        if name == "write_text" and own and given.get("newline") != "\n":
            faults.append(f"{call.lineno}: write_text without newline='\\n'")
        if name == "to_csv" and given.get("lineterminator") != "\n":
            faults.append(f"{call.lineno}: to_csv without lineterminator='\\n'")
        module = getattr(getattr(call.func, "value", None), "id", None)
        if name == "open" and (not own or module == "io"):
            mode = next((getattr(a, "value", "b") for a in call.args[1:2]), given.get("mode", "r"))
            if mode is not None and "b" not in mode and given.get("encoding") != "utf-8":
                faults.append(f"{call.lineno}: open of text without encoding='utf-8'")
        if name in ("run", "Popen", "check_output") and module == "subprocess":
            if (given.get("text") or given.get("universal_newlines")) and given.get("encoding") != "utf-8":
                faults.append(f"{call.lineno}: {name} of text without encoding='utf-8'")
    return faults


@pytest.mark.parametrize(
    "line",
    [
        "path.read_text()",
        "path.read_text(encoding='latin-1')",
        "path.write_text('a', encoding='utf-8')",
        "table.to_csv(path, index=False)",
        "open(path)",
        "open(path, 'w')",
        "io.open(path, mode='a')",
        "subprocess.run(x, text=True)",
    ],
)
def test_the_check_below_sees_each_fault(line):
    assert len(find_text_faults(line)) >= 1
    assert find_text_faults("open(p, 'rb'); open(p, 'r+b' if a else 'w+b'); Image.open(p); write_text(p, 'a')") == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_is_utf8_with_line_feeds_on_every_system(path):
    assert find_text_faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_the_setting_of_glibc_is_left_alone_elsewhere(monkeypatch, platform):
    def refuse(_):
        raise TypeError("argument of type 'NoneType' is not iterable")  # what CDLL(None) raises on Windows

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    feature_extraction.keep_freed_memory()
