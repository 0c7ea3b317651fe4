"""What a norm's file says beside its layer, checked before anything trains: the report would fail on it at the end."""

import re
from pathlib import Path

import typst
from matplotlib.colors import is_color_like

from stages.core.files import StageError
from stages.models.norms import load_norm

BIBLIOGRAPHY = Path("stages/document.bib")


def find_problem(equation: str) -> str | None:
    """What typst says of an equation that it cannot set."""
    try:
        typst.compile(f"$hat(x) = {equation}$".encode())
    except typst.TypstError as error:
        return str(error)
    return None


def check_norm(name: str) -> None:
    """Raises StageError, naming the file and all that is wrong in it."""
    norm, problems = load_norm(name), []
    known = re.findall(r"@\w+\{([^,]+),", BIBLIOGRAPHY.read_text(encoding="utf-8"))
    if not is_color_like(norm.color):
        problems.append(f"color is {norm.color!r}; it must be one of matplotlib's, such as #0072B2")
    if norm.reference is not None and norm.reference not in known:
        problems.append(f"reference is {norm.reference!r}; it must be None or a key of {BIBLIOGRAPHY}")
    if problem := find_problem(norm.equation):
        problems.append(f"equation is {norm.equation!r}, which typst cannot set ({problem}); words go in quotes")
    if problems:
        raise StageError(f"stages/models/norms/{name}.py: " + "; ".join(problems))
