"""Where trainings keep their state: resumed after a kill, and not trained again once a seed is finished.

A state is valid for one fingerprint of the settings, the input files and the code that trains, with the packages it
uses. It lies under .scratch, outside everything that DVC tracks, since DVC deletes a stage's outs before it runs.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from stages.core.files import SCRATCH, file_sha256, locked
from stages.core.fingerprints import fingerprint_definitions, locate

KEPT = 8  # settings of one training whose states are kept, the last used ones


def size_and_time(path: str | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


@cache
def digest_file(path: str, size: int, modified: int) -> str:
    """SHA-256 of a file, computed once per process while size and time of modification stay."""
    return file_sha256(path)


def identify(values: Any, paths: Iterable[str | Path], code: Iterable[Callable]) -> str:
    """One short name for settings (plain values), the bytes of input files, and functions with all that they reach."""
    inputs = {str(path): digest_file(str(path), *size_and_time(path)) for path in paths}
    identity = json.dumps([values, inputs, fingerprint_definitions(*map(locate, code))], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


@contextmanager
def kept_states(
    name: str, what: str, values: Any, paths: Iterable[str | Path], code: Iterable[Callable]
) -> Iterator[Path]:
    """The folder for states of a training `name`, which no other process may run meanwhile; `what` is it in words.

    Valid for the settings `values`, the bytes of `paths`, and the functions `code`, which make the data and train. Of
    other settings, the states that were used last are kept. Raises StageError while another process holds them.
    """
    folder = SCRATCH / name
    with locked(folder, what):
        states = folder / identify(values, paths, code)
        states.mkdir(exist_ok=True)
        os.utime(states)
        yield states
        for old in sorted(filter(Path.is_dir, folder.iterdir()), key=os.path.getmtime)[:-KEPT]:
            shutil.rmtree(old)
