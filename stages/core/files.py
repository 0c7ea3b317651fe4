"""Files and folders that are either whole or absent, their fingerprints, and locks."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, SoftFileLock, Timeout

if TYPE_CHECKING:
    import pandas as pd

SCRATCH = Path(".scratch")  # resume state: git-ignored, and outside everything DVC tracks
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}  # of a file system that refuses flock


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
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """The same bytes on every system: UTF-8, lines that end in a line feed."""
    write(path, lambda p: p.write_text(text, encoding="utf-8", newline="\n"))


def write_csv(path: str | Path, table: "pd.DataFrame", float_format: str | None = None) -> None:
    """The same bytes on every system: UTF-8, lines that end in a line feed; no index."""
    write(path, lambda p: table.to_csv(p, index=False, lineterminator="\n", float_format=float_format))


def read_json(path: str | Path) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def remove_folder(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def replace_folder(source: Path, target: str | Path) -> None:
    """Have the folder `target` hold what `source` holds, which is gone then; both may lie on different disks.

    `target` is never half full, and whatever fails, its old files and those of `source` are still there: what is new is
    complete beside it before what is old leaves its place. Raises StageError.
    """
    target = Path(target).resolve()  # where it is a link, what it links to
    new, old = (target.with_name(f".{target.name}.partial-{which}") for which in ("new", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_folder(new)
        try:
            move_beside(source, new)
            if target.exists():
                remove_folder(old)
                os.rename(target, old)
            os.rename(new, target)
        except BaseException:
            if old.exists() and not target.exists():
                os.rename(old, target)
            if source.exists():
                remove_folder(new)
            elif new.exists():
                move_beside(new, source)
            raise
        remove_folder(source)
        remove_folder(old)
    except OSError as error:
        reason = error.args[0][0][-1] if isinstance(error, shutil.Error) else error  # of the first of many files
        raise StageError(
            f"moving {source} to {target} failed: {reason}; nothing is lost: mend that, and run the command again"
        ) from None


def move_beside(source: Path, new: Path) -> None:
    """Rename a folder, or copy it where that is another disk."""
    try:
        os.rename(source, new)
    except OSError:
        shutil.copytree(source, new)


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def take_lock(path: Path, timeout: float) -> AbstractContextManager:
    """Lock the file `path` until the context or this process ends; raises filelock.Timeout after `timeout` seconds.

    Where the file system knows no locks, as some of networks do, a marker file takes their place: it names its process,
    and counts no more once that one is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(path, fallback_to_soft=False).acquire(timeout)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return SoftFileLock(path.with_name(f"{path.name}.held")).acquire(timeout)


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` for this process; raises StageError while another living process holds it."""
    holder = folder / "process"  # not in the lock itself, which Windows lets no other process read
    try:
        lock = take_lock(folder / "lock", timeout=0)
    except Timeout:
        number = holder.read_text(encoding="utf-8") if holder.exists() else ""
        raise StageError(
            f"{what} is already running in process {number or '(unknown)'}; "
            "wait for it to end, or stop it, and run the command again"
        ) from None
    with lock:
        write_text(holder, str(os.getpid()))
        yield
