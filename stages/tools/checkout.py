"""Copy the working tree without results, tracked by git or not: `python -m stages.tools.checkout .quick`.

No git is asked, so that a ZIP download without a repository can be copied too.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from dulwich.ignore import IgnoreFilterManager


def list_files(root: Path) -> Iterator[str]:
    """The paths, with slashes, of the files that git would take: all but what a .gitignore names."""
    ignore = IgnoreFilterManager(str(root), [], ignorecase=False)
    for folder, folders, names in os.walk(root):
        inside = Path(folder).relative_to(root)
        paths = [(inside / name).as_posix() for name in names if name != ".git"]
        folders[:] = [n for n in folders if n != ".git" and not ignore.is_ignored(f"{(inside / n).as_posix()}/")]
        yield from (path for path in paths if not ignore.is_ignored(path))


# What DVC cannot see is recorded here: without these it could not even tell what there is to run.
RECORDS = ("metrics/code.json", "metrics/environment.json")


def is_source(name: str) -> bool:
    """Whether a file is none of the main study's results."""
    return name in RECORDS or (not name.startswith(("metrics/", "plots/")) and name != "dvc.lock")


def copy_working_tree(root: Path, folder: Path, wanted: Callable[[str], bool] = is_source) -> None:
    for name in list(list_files(root)):  # before there is a copy, which may lie in `root`
        if wanted(name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)


if __name__ == "__main__":
    copy_working_tree(Path(), Path(sys.argv[1]))
