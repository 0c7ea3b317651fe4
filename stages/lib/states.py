"""Where trainings keep their state: resumed after a kill, and not trained again once a seed is finished.

A state is valid for one fingerprint of the settings, the input files, this code and torch. It lies under .scratch,
outside everything that DVC tracks, since DVC deletes a stage's outs before it runs.
"""

import ast
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.lib.files import SCRATCH, file_sha256, locked

KEPT = 8  # settings of one training whose states are kept, the last used ones
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def digest_code(path: str | Path) -> str:
    """SHA-256 of what a module does: its syntax tree without docstrings, comments and layout."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def size_and_time(path: str | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


@cache
def digest_file(path: str, size: int, modified: int) -> str:
    """SHA-256 of a file, computed once per process while size and time of modification stay."""
    return file_sha256(path)


def list_modules() -> dict[str, str]:
    """The files of this repository's modules that are imported, and of the script that runs, by their names."""
    script = sys.modules["__main__"]
    modules = dict(sys.modules)
    if getattr(script, "__spec__", None):  # `python -m stages.train`: the script is no module of its own name
        modules[script.__spec__.name] = script
    files = {name: getattr(module, "__file__", None) for name, module in modules.items()}
    return {name: path for name, path in files.items() if path and name.split(".")[0] == "stages"}


def fingerprint(values: Any, paths: Iterable[str | Path]) -> str:
    """Identifies settings (plain values), the bytes of input files, torch, and the running script with its imports."""
    code = {name: digest_code(path) for name, path in list_modules().items()}
    inputs = {str(path): digest_file(str(path), *size_and_time(path)) for path in paths}
    identity = json.dumps([values, inputs, code, version("torch")], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


@contextmanager
def kept_states(name: str, what: str, values: Any, paths: Iterable[str | Path]) -> Iterator[Path]:
    """The folder for states of a training `name`, which no other process may run meanwhile; `what` is it in words.

    Of other settings, the states that were used last are kept. Raises StageError while another process holds them.
    """
    folder = SCRATCH / name
    with locked(folder, what):
        states = folder / fingerprint(values, paths)
        states.mkdir(exist_ok=True)
        os.utime(states)
        yield states
        for old in sorted(filter(Path.is_dir, folder.iterdir()), key=os.path.getmtime)[:-KEPT]:
            shutil.rmtree(old)
