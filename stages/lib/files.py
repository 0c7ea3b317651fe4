"""Files that are either whole or absent, their fingerprints, and locks on scratch folders."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCRATCH = Path(".scratch")  # resume state and downloads: git-ignored, and outside everything DVC tracks


class StageError(RuntimeError):
    """Something that the user can mend; its message says what, where and how."""


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved there only when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: str | Path, save: Callable[[Path], Any]) -> None:
    """Call `save` with a temporary path and rename: a reader never sees half a file."""
    with whole_file(path) as temporary:
        save(temporary)


def write_json(path: str | Path, values: dict) -> None:
    write(path, lambda p: p.write_text(json.dumps(values, indent=2) + "\n"))


def read_json(path: str | Path) -> dict:
    return json.loads(Path(path).read_text())


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(values: Any, paths: Iterable[str | Path] = ()) -> str:
    """Identifies settings, input files and this code: resume state is valid for one fingerprint only."""
    code = sorted(Path(__file__).parent.glob("*.py"))
    digests = [file_sha256(path) for path in [*code, *paths]]
    return hashlib.sha256(json.dumps([values, digests], sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` for this process; raises StageError while another living process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StageError(
                f"{what} is already running in process {lock.read().strip() or '(unknown)'}; "
                "wait for it to end, or stop it, and run the command again"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
