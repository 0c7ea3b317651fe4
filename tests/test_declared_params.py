"""Each stage tracks the parameters that it reads; one of a single variant does not track the list of all variants."""

import ast
import importlib
import re
from dataclasses import fields
from pathlib import Path

import pytest
from dvc.parsing import DataResolver
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml

from stages.core.params import load_params
from tests.conftest import ROOT

PIPELINES = {path.relative_to(ROOT): load_yaml(path) for path in (ROOT / "dvc.yaml", *ROOT.glob("stages/*/dvc.yaml"))}
MAIN = {"curvature_summary", "document", "errors", "notebook", "report", "statistics"}
REPORT = "neighbours: document"

# A list that is compared, the stages that its last entry has, and those that work on the whole list.
LISTS = {
    "norms": (
        {
            f"{stage}@frn-{mode}"
            for stage in ("train", "landscape", "gradients", "curvature")
            for mode in ("noclip", "clip")
        },
        MAIN
        | {f"variants: train@{study}" for study in ("thresholds", "batch_sizes", "placements")}
        | {"cache_study: precision"},
    ),
    "variants.thresholds": (set(), {"variants: train@thresholds", REPORT}),
    "variants.batch_sizes": (set(), {"variants: train@batch_sizes", REPORT}),
    "variants.placements": (set(), {"variants: train@placements", REPORT}),
    "cache_study.views": (set(), {"cache_study: features", "cache_study: views"}),
    "baseline.percents": (
        {"baseline: train@100"},
        {"baseline: report", "baseline: transfer", "baseline: compare", REPORT},
    ),
    "unfreezing.trainable_from": (
        {"unfreezing: features@14", "unfreezing: train@14"},
        {"unfreezing: representations", "unfreezing: summary", REPORT},
    ),
    "small_cnn.variants": (
        {"small_cnn: train@layernorm"}
        | {f"small_cnn_sweep: train@layernorm-{size}-{lr}" for size in (16, 32, 64, 256) for lr in (0.003, 0.01, 0.03)},
        {"small_cnn: report", "small_cnn_sweep: report", REPORT},
    ),
    "small_cnn_sweep.batch_sizes": (
        {
            f"small_cnn_sweep: train@{norm}-256-{lr}"
            for norm in ("batchnorm", "groupnorm", "layernorm")
            for lr in (0.003, 0.01, 0.03)
        },
        {"small_cnn_sweep: report", REPORT},
    ),
    "small_cnn_sweep.lrs": (
        {
            f"small_cnn_sweep: train@{norm}-{size}-0.03"
            for norm in ("batchnorm", "groupnorm", "layernorm")
            for size in (16, 32, 64, 256)
        },
        {"small_cnn_sweep: report", REPORT},
    ),
    "mobilenetv2.variants": (
        {"mobilenetv2: train@silu_expansion_10_se"},
        {"mobilenetv2: report", REPORT},
    ),
}


def look_up(values: dict, key: str):
    for name in key.split("."):
        values = values[name]
    return values


def own_params(stage: dict) -> list[str]:
    """The keys of params.yaml that a stage tracks; it may track what the stage `environment` found beside these."""
    return [key for key in stage.get("params", []) if isinstance(key, str)]


def resolve(values: dict) -> dict[str, tuple]:
    """What DVC compares of every stage but its files, command and parameters, by pipeline and name."""
    stages, repo = {}, Repo(uninitialized=True)
    for pipeline, contents in PIPELINES.items():
        study = pipeline.parent.name
        resolver = DataResolver(
            repo, "stages", {"vars": [values], "stages": contents["stages"]}
        )  # no params.yaml there
        for name, stage in resolver.resolve()["stages"].items():
            tracked = {key: look_up(values, key) for key in own_params(stage)}
            stages[f"{study}: {name}" if study else name] = stage["cmd"], tracked
    return stages


@pytest.fixture(scope="module")
def committed() -> dict[str, tuple]:
    return resolve(load_yaml(ROOT / "params.yaml"))


@pytest.mark.parametrize("key", LISTS)
def test_one_more_or_one_fewer_concerns_that_one_and_the_summaries(committed, key):
    own, summaries = LISTS[key]
    values = load_yaml(ROOT / "params.yaml")
    compared = look_up(values, key)
    compared.popitem() if isinstance(compared, dict) else compared.pop()
    found = resolve(values)
    assert committed.keys() - found.keys() == own and found.keys() <= committed.keys()
    assert {name for name in found if found[name] != committed[name]} == summaries


def list_settings(values: dict) -> set[str]:
    """The keys of settings, such as clip, train.epochs and mobilenetv2.variants."""
    sections = {name: own for name, own in values.items() if isinstance(own, dict)}
    return values.keys() - sections | {f"{name}.{key}" for name, own in sections.items() for key in own}


KEYS = list_settings(load_yaml(ROOT / "params.yaml"))
# Settings that a stage takes from a section as a whole and replaces by its own.
REPLACED = {"variants.train": {"train.epochs"}, "unfreezing.train": {"train.epochs", "train.block_lr"}}


def chain(node: ast.AST) -> list[str] | None:
    """The names of `params.train.epochs`; None for what is no such chain."""
    names = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else None


def find_reads(function: ast.FunctionDef) -> set[str]:
    """Keys that a function reads of its argument `params`, also by another name, and by asdict."""
    known, reads = {"params": ""}, set()

    def resolve_chain(node: ast.AST) -> str | None:
        names = chain(node)
        return None if not names or names[0] not in known else ".".join(filter(None, [known[names[0]], *names[1:]]))

    for node in ast.walk(function):
        for target in node.targets if isinstance(node, ast.Assign) else []:
            several = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            pairs = zip(target.elts, node.value.elts, strict=True) if several else [(target, node.value)]
            for name, source in pairs:
                if isinstance(name, ast.Name) and isinstance(source, ast.Attribute) and resolve_chain(source):
                    known[name.id] = resolve_chain(source)
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and resolve_chain(node):
            found = resolve_chain(node)
            reads |= {found} & KEYS
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "asdict":
            section = resolve_chain(node.args[0])
            reads |= {key for key in KEYS if section and key.startswith(f"{section}.")}
    return reads


def list_stages() -> dict[str, dict]:
    """Every stage as it is written, by its module and, where several share one, its argument."""
    stages = {}
    for contents in PIPELINES.values():
        for stage in contents["stages"].values():
            module, *arguments = stage["cmd"].partition("stages.")[2].split()
            stages[" ".join([module, *arguments[:1]])] = stage
    return stages


STAGES = list_stages()


def is_declared(key: str, stage: dict) -> bool:
    """Whether the stage tracks the key, its section, or is itself one of the entries of that list."""
    tracked = {re.sub(r"\.?\$\{.*?\}", "", name) for name in own_params(stage)}
    compared = {str(entries).strip("${}") for entries in stage.get("matrix", {}).values()}
    return key in tracked | compared or key.partition(".")[0] in tracked


@pytest.mark.parametrize("name", STAGES)
def test_what_a_script_reads_is_declared(name):
    module = name.split()[0]
    tree = ast.parse((ROOT / "stages" / f"{module.replace('.', '/')}.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    reads = set().union(*map(find_reads, functions)) - REPLACED.get(module, set())
    always = STAGES[name].get("always_changed", False)
    assert always or not {key for key in reads if not is_declared(key, STAGES[name])}
    assert always or reads


IMAGE_STUDIES = ("baseline", "small_cnn", "small_cnn_sweep", "mobilenetv2")


@pytest.fixture
def read_by(monkeypatch):
    """The keys in the sections of studies from images that a script reads, but for what it has a library do."""

    def watch(study: str, script: str, *arguments: str) -> set[str]:
        params, reads = load_params(ROOT / "params.yaml"), set()
        for section in IMAGE_STUDIES:
            kind = type(getattr(params, section))
            names = {field.name for field in fields(kind)}

            def get(self, name, section=section, names=names):
                if name in names:
                    reads.add(f"{section}.{name}")
                return object.__getattribute__(self, name)

            monkeypatch.setattr(kind, "__getattribute__", get, raising=False)
        module = importlib.import_module(f"stages.{study}.{script}")
        for name in ("take_device", "train_variant", "report_study"):
            monkeypatch.setattr(module, name, lambda *passed: None, raising=False)
        module.main(params, *arguments)
        return reads

    return watch


def declared(study: str, stage: str) -> set[str]:
    stages = PIPELINES[Path(f"stages/{study}/dvc.yaml")]["stages"]
    return {re.sub(r"\.\$\{.*?\}", "", key) for key in own_params(stages[stage])}


@pytest.mark.parametrize(
    ("study", "variant", "lists"),
    [
        ("baseline", "25", {"baseline.percents"}),
        ("small_cnn", "groupnorm", set()),
        ("small_cnn_sweep", "groupnorm-16-0.01", {"small_cnn_sweep.batch_sizes", "small_cnn_sweep.lrs"}),
        ("mobilenetv2", "silu", set()),
    ],
)
def test_a_training_from_images_declares_what_makes_its_recipe(read_by, study, variant, lists):
    """All that it reads but the lists, of which it is an entry, and nothing else."""
    reads = read_by(study, "train", variant)
    assert reads - lists == declared(study, "train") and lists <= reads


@pytest.mark.parametrize("study", ["baseline", "small_cnn", "mobilenetv2"])
def test_a_report_on_training_from_images_declares_what_its_captions_say(read_by, study):
    assert read_by(study, "report") == declared(study, "report")


@pytest.mark.parametrize("study", ["small_cnn", "mobilenetv2"])
def test_another_setting_of_a_variant_concerns_that_one_and_the_summaries(committed, study):
    values = load_yaml(ROOT / "params.yaml")
    name = list(values[study]["variants"])[-1]
    values[study]["variants"][name] = {"changed": 1}
    found = resolve(values)
    changed = {stage for stage in found if found[stage] != committed[stage]}
    trained = {stage for stage in changed if ": train@" in stage}
    assert f"{study}: train@{name}" in trained and all(f": train@{name}" in stage for stage in trained)
    sweeps = {"small_cnn_sweep: report"} if study == "small_cnn" else set()
    assert changed - trained == {f"{study}: report", REPORT} | sweeps


def test_what_computes_follows_torch_device_and_precision():
    """A stage that reads the parameter `device`, or a precision, runs again where what these mean here has changed."""
    for name, stage in STAGES.items():
        source = (ROOT / "stages" / f"{name.split()[0].replace('.', '/')}.py").read_text(encoding="utf-8")
        if "take_device(params)" not in source:
            continue
        files = [entry for entry in stage["params"] if isinstance(entry, dict)]
        tracked = next(entry["metrics/environment.json"] for entry in files if "metrics/environment.json" in entry)
        assert "device" in tracked, name
        sections = {key.removesuffix(".precision") for key in own_params(stage) if key.endswith("precision")}
        sections |= {"train"} & set(own_params(stage)) | {"features"} & set(own_params(stage))
        assert {f"precision.{section}" for section in sections} == set(tracked) - {"device"}, name
