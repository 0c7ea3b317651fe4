"""Record what the code of every stage does, as fingerprints in metrics/code.json: DVC does not follow imports.

This stage always runs, in a second, and the others depend on what it writes: each runs again where its own changed.
"""

from pathlib import Path

from stages.core.files import write_json
from stages.core.fingerprints import fingerprint_definitions, fingerprint_script
from stages.core.params import NORMS, Params
from stages.core.stage import run_stage

CODE = "metrics/code.json"
NORM_FILES = "stages.models.norms"


def is_script(path: Path) -> bool:
    return "\n    run_stage(main" in path.read_text(encoding="utf-8")


def fingerprint_scripts(root: Path) -> dict:
    """Script -> fingerprint; those of a study under the name of its folder. The notebook's source is one too."""
    found: dict = {}
    for path in sorted([*(root / "stages").glob("*.py"), *(root / "stages").glob("*/*.py")]):
        folder, name = path.parent.name, path.stem
        if is_script(path) or name == "analysis":
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            own = found if folder == "stages" else found.setdefault(folder, {})
            own[name] = fingerprint_script(module, root)
    return found


def fingerprint_norms(norms: list[str], root: Path) -> dict:
    """Of each norm that there is: its `layer`, and its `file` as a whole; `layers` and `files` of those studied."""
    found = {}
    for kind, name in {"layer": "make_layer", "file": ""}.items():
        parts = {norm: (f"{NORM_FILES}.{norm}", name) for norm in NORMS}
        found[kind] = {norm: fingerprint_definitions(part, root=root) for norm, part in parts.items()}
        found[f"{kind}s"] = fingerprint_definitions(*(parts[norm] for norm in norms), root=root)
    return found


def find_fingerprints(norms: list[str], root: Path = Path()) -> dict:
    """What metrics/code.json holds."""
    return fingerprint_scripts(root) | {"norms": fingerprint_norms(norms, root)}


def main(params: Params) -> None:
    write_json(CODE, find_fingerprints(params.norms))


if __name__ == "__main__":
    run_stage(main, timing=None)
