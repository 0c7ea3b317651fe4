"""What code does, as a fingerprint: a script, a class or a function, with all that it reaches in this repository.

DVC does not follow imports. Here they are followed from definition to definition, by name: what is reached counts, as
do the statements of every module that is imported on the way, since importing runs them. Comments, docstrings, layout
and annotations of functions do not count, nor does what a module defines beside what is reached. Names are taken to
mean whatever a module binds them to anywhere, which can only count too much; nothing here looks a definition up by a
string, but norms, which have fingerprints of their own.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from pathlib import Path
from typing import Any

from stages.core.files import StageError

PACKAGE = "stages"
# The first two accept values of params.yaml or refuse them, and never change one; the last says what code does. Nothing
# of them reaches a result.
ASIDE = ("stages.core.params", "stages.core.conflicts", "stages.core.fingerprints")
# Packages that report, wait, fetch or check: whatever their release, results are the same.
HARMLESS = {"aiohttp", "filelock", "platformdirs", "pydantic", "pydantic-core", "ruamel.yaml", "tqdm"}

STATEMENTS, MAIN = "<statements>", "<main>"  # what a module runs beside its definitions, and what only a script does

Definition = tuple[str, str]  # module, name in it


class Bare(ast.NodeTransformer):
    """Takes out what does nothing: docstrings and the annotations of functions."""

    def visit_documented(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return node

    visit_Module = visit_ClassDef = visit_documented

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.visit_documented(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node


def dump(node: Any) -> Any:
    """A syntax tree as lists and plain values, the same under every release of Python: what is absent is left out."""
    if isinstance(node, list):
        return [dump(child) for child in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, dump(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return [type(node).__name__, *fields]


def hash_values(values: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def is_main_block(node: ast.stmt) -> bool:
    """`if __name__ == "__main__"`, which importing does not run."""
    return isinstance(node, ast.If) and any(getattr(n, "id", "") == "__name__" for n in ast.walk(node.test))


def find_file(name: str, root: Path) -> Path:
    """Where a module or a package would lie."""
    path = root / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def names_of_targets(node: ast.stmt) -> list[str] | None:
    """What an assignment binds; None where it is none, or binds something else than names."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return None
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    flat = [n for t in targets for n in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return [n.id for n in flat] if all(isinstance(n, ast.Name) for n in flat) else None


def parse_file(path: Path) -> ast.Module:
    """Raises StageError where a file is no Python."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise StageError(
            f"{path}, line {error.lineno}: {error.msg}; mend it, since stages depend on this code"
        ) from None


class Module:
    """A file of this repository: its definitions, its statements, and what the names that it imports stand for."""

    def __init__(self, name: str, root: Path):
        tree = Bare().visit(parse_file(find_file(name, root)))
        self.name, self.root = name, root
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.rest: dict[str, list[ast.stmt]] = {STATEMENTS: [], MAIN: []}
        self.described: dict[str, tuple[str, dict[str, set[str]]]] = {}
        for node in tree.body:
            self.sort_in(node)
        self.imports = self.find_imports(tree)

    def sort_in(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound = [node.name]
        else:
            bound = names_of_targets(node)
        if bound is not None:
            for name in bound:
                self.definitions.setdefault(name, []).append(node)
        elif is_main_block(node):
            self.rest[MAIN].append(node)
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            self.rest[STATEMENTS].append(node)

    def describe(self, name: str) -> tuple[str, dict[str, set[str]]]:
        """The hash of a piece of this module's code, empty if there is none, and the names that it uses."""
        if name not in self.described:
            nodes = self.rest[name] if name in self.rest else self.definitions[name]
            self.described[name] = hash_values(dump(nodes)) if nodes else "", names_used(ast.Module(nodes, []))
        return self.described[name]

    def find_imports(self, tree: ast.Module) -> dict[str, set[Definition]]:
        """The name that an import binds -> the module and the name in it ("" for the module itself)."""
        found: dict[str, set[Definition]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.split(".")[0]
                    if alias.name.split(".")[0] == PACKAGE and not alias.asname:
                        raise StageError(f"{self.name}: write `from {PACKAGE}. ... import`, not `import {alias.name}`")
                    found.setdefault(alias.asname or whole, set()).add((whole, ""))
            elif isinstance(node, ast.ImportFrom):
                if node.level or any(alias.name == "*" for alias in node.names):
                    raise StageError(f"{self.name}: write what is imported by its whole name: no dots first, no star")
                for alias in node.names:
                    module = f"{node.module}.{alias.name}"
                    is_own = node.module.split(".")[0] == PACKAGE and find_file(module, self.root).is_file()
                    target = (module, "") if is_own else (node.module, alias.name)
                    found.setdefault(alias.asname or alias.name, set()).add(target)
        return found

    @cached_property
    def ancestors(self) -> list[str]:
        """The packages whose __init__ runs before this module."""
        parts = self.name.split(".")
        return [".".join(parts[:k]) for k in range(1, len(parts))]


def names_used(node: ast.AST) -> dict[str, set[str]]:
    """Every name in a piece of code -> the attributes that are taken of it; "" where it stands by itself."""
    used: dict[str, set[str]] = {}
    inside = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name):
            used.setdefault(child.value.id, set()).add(child.attr)
            inside.add(id(child.value))
        elif isinstance(child, ast.Name) and id(child) not in inside:
            used.setdefault(child.id, set()).add("")
    return used


class Reach:
    """All that can be reached from some definitions: pieces of code, and the packages of others that they use."""

    def __init__(self, root: Path):
        self.root = root
        self.pieces: dict[Definition, str] = {}
        self.packages: set[str] = set()
        self.modules: dict[str, Module] = {}

    def load(self, name: str) -> Module:
        """The module, once; whatever importing it runs is reached as well."""
        if name not in self.modules:
            module = self.modules[name] = parse_module(name, self.root, find_file(name, self.root).stat().st_mtime_ns)
            for ancestor in module.ancestors:
                self.load(ancestor)
            for targets in module.imports.values():
                for other, _ in targets:
                    self.enter(other)
            self.take(module, STATEMENTS)
        return self.modules[name]

    def enter(self, name: str) -> None:
        """Import a module, of this repository or of another package."""
        if name.split(".")[0] != PACKAGE:
            return
        if name not in ASIDE:
            self.load(name)

    def take(self, module: Module, name: str) -> None:
        """A piece of a module's code, and what it uses."""
        if (module.name, name) in self.pieces:
            return
        self.pieces[module.name, name], used = module.describe(name)
        for name, attributes in used.items():
            self.follow(module, name, attributes)

    def follow(self, module: Module, name: str, attributes: set[str]) -> None:
        if name in module.definitions:
            self.take(module, name)
        for target, attribute in module.imports.get(name, ()):
            if target.split(".")[0] != PACKAGE:
                self.packages.add(target.split(".")[0])
            elif target not in ASIDE:
                for wanted in {attribute} if attribute else attributes:
                    self.reach(target, wanted)

    def reach(self, name: str, wanted: str) -> None:
        """A name of a module, or all of it where `wanted` is empty or the module only hands the name on."""
        module = self.load(name)
        if wanted in module.definitions or wanted in module.imports:
            self.follow(module, wanted, {""})
        else:
            for own in [*module.definitions, *module.imports]:
                self.follow(module, own, {""})

    def run(self, name: str) -> None:
        """A script: all its statements, and the block that only scripts run."""
        module = self.load(name)
        self.take(module, MAIN)


@cache
def parse_module(name: str, root: Path, modified: int) -> Module:
    """Each file once, while it stays as it is."""
    return Module(name, root)


@cache
def list_distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


@cache
def find_distributions(package: str) -> list[str]:
    """What an imported package belongs to: mostly the distribution of its name, found without a look at all others."""
    if package in sys.stdlib_module_names:
        return []
    try:
        return [distribution(package).metadata["Name"]]
    except PackageNotFoundError:
        return list_distributions().get(package, [])


def find_versions(packages: Iterable[str]) -> dict[str, str]:
    """Releases of the distributions that packages belong to, but of those that reach no result."""
    found = {name for package in packages for name in find_distributions(package)}
    return {name: version(name).split("+")[0] for name in sorted(found) if name.lower() not in HARMLESS}


def digest(reach: Reach) -> str:
    pieces = sorted((*where, code) for where, code in reach.pieces.items() if code)
    return hash_values([pieces, find_versions(reach.packages)])[:16]


def fingerprint_script(name: str, root: Path = Path()) -> str:
    """Of a module that `python -m` runs."""
    reach = Reach(root)
    reach.run(name)
    return digest(reach)


def fingerprint_definitions(*definitions: Definition, root: Path = Path()) -> str:
    """Of functions, classes and values, each as (module, name); an empty name stands for a whole module."""
    reach = Reach(root)
    for module, name in definitions:
        reach.reach(module, name)
    return digest(reach)


def locate(what: Callable) -> Definition:
    """Where a function or class of this repository is defined."""
    return what.__module__, what.__name__
