"""The one schema of params.yaml: every key, its type and its allowed values. Each stage checks all of it first."""

from collections.abc import Collection
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic.dataclasses import dataclass
from pydantic_core import core_schema
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError
from typing_extensions import TypedDict  # pydantic refuses that of `typing` before Python 3.12

from stages.core.choices import LAST, PLACEMENTS
from stages.core.conflicts import find_conflicts

NORMS = sorted(path.stem for path in (Path(__file__).parents[1] / "models/norms").glob("[!_]*.py"))  # a file each
WEIGHTS = ("auto", "imagenet1k_v1", "imagenet1k_v2", "keras_160")
PRECISIONS = ("auto", "bfloat16", "float32")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "one_cycle", "cosine", "step")
SMALL_CNN_NORMS = ("batchnorm", "groupnorm", "layernorm")
STRIDES = ("reduce_32", "reduce_16", "reduce_8")
ACTIVATIONS = ("relu6", "leaky_relu", "silu", "hardswish", "hardsigmoid", "gelu")
LARGEST_SEED = 2**32 - 1  # of the generators that the study draws from


class ParamsError(ValueError):
    """params.yaml holds something that the study cannot run with."""


class Allowed:
    """Has whatever is wrong with a value told as what it must be."""

    def __init__(self, text: str):
        self.text = text

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.custom_error_schema(handler(source), "allowed", custom_error_message=self.text)


def allow(kind: Any, text: str, *constraints: Any) -> Any:
    """The type `kind` under constraints, which `text` tells the user: "it must be <text>"."""
    return Annotated[kind, *constraints, Allowed(text)]


def integer(low: int, high: int | None = None, step: int = 1) -> Any:
    text = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    text += f" (a multiple of {step})" if step > 1 else ""
    return allow(int, text, Field(strict=True, ge=low, le=high, multiple_of=step))


def choice(names: Collection[str]) -> Any:
    return allow(Literal[*names], "one of " + ", ".join(names))


def choice_or_path(names: Collection[str], path: str, fits: Any) -> Any:
    def check(value: str) -> str:
        try:
            known = value in names or fits(Path(value))
        except OSError:
            known = False
        return require(known, value)

    text = (
        f"one of {', '.join(names)}, or the path of an existing {path} "
        "(an absolute path for --temp and queued experiments, which run in another folder)"
    )
    return allow(str, text, Field(strict=True), AfterValidator(check))


def optional(kind: Any) -> Any:
    """The same type, or null."""
    return allow(kind | None, f"null or {kind.__metadata__[-1].text}")


def listed(kind: Any, what: str) -> Any:
    return allow(
        list[kind],
        f"a non-empty list, without repeats, of {what}",
        Field(strict=True, min_length=1),
        AfterValidator(refuse_repeats),
    )


def require(fits: bool, value: Any) -> Any:
    if not fits:
        raise ValueError
    return value


def refuse_repeats(values: list) -> list:
    """Numbers that are written alike in the names of files and rows count as repeats."""
    written = {f"{value:g}" if isinstance(value, float) else str(value) for value in values}
    return require(len(written) == len(values), values)


def refuse_even(value: int) -> int:
    return require(value % 2 == 1, value)


def refuse_long(value: float) -> float:
    """DVC names stages and files after the number as it is written, the study after its six leading digits."""
    return require(str(value) == f"{value:g}", value)


def is_release(path: Path) -> bool:
    """Whether this can be CIFAR-10's official release, unpacked or not."""
    import tarfile  # here, because hardly anyone needs it

    return (path / "data_batch_1").is_file() if path.is_dir() else path.is_file() and tarfile.is_tarfile(path)


# Finite, and an integer stays one: settings are saved with the results as they were given.
Number = Annotated[int, Field(strict=True, lt=2**63)] | Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = allow(Number, "a number > 0", Field(gt=0))
NotNegative = allow(Number, "a number >= 0", Field(ge=0))
Share = allow(Number, "a number between 0 and 1, neither included", Field(gt=0, lt=1))
Dropped = allow(Number, "a number in [0, 1)", Field(ge=0, lt=1))
Percent = allow(Number, "a number in (0, 100]", Field(gt=0, le=100))
Count = integer(1)
AtLeastTwo = integer(2)
Odd = allow(integer(3), "an integer >= 3 (odd)", AfterValidator(refuse_even))
Seed = integer(0, LARGEST_SEED)
Block = integer(3, LAST)
Seeds = listed(Seed, f"integers from 0 to {LARGEST_SEED}")
BatchSizes = listed(AtLeastTwo, "integers >= 2")
NAMED = "of at most six digits, without .0 at the end"

NormName = choice(NORMS)
Placement = choice(PLACEMENTS)
Precision = choice(PRECISIONS)
Device = choice(("auto", "cpu", "cuda", "mps"))
Never = allow(None, "null (those configurations never clip)")
Source = choice_or_path(("auto", "torchvision", "npm"), "cifar-10-batches-py folder or .tar.gz", is_release)
Weights = choice_or_path(WEIGHTS, ".pth file", Path.is_file)
Normalization = choice(("cifar10", "backbone"))
BlockStatistics = choice(("frozen", "batch"))
Optimizer = choice(OPTIMIZERS)
Schedule = choice(SCHEDULES)
Strides = choice(STRIDES)
VariantName = allow(
    str,
    "text of letters, digits, underscores and hyphens, since stages and files are called after it",
    Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$"),
)

section = dataclass(frozen=True, config=ConfigDict(extra="forbid", defer_build=True))
variant = with_config(ConfigDict(extra="forbid"))  # stays a dict of what is written, to be handed on as it is


def named(settings: type) -> Any:
    """Variants of a study, a name of one's own -> what it sets, as it is written."""
    return Annotated[dict[VariantName, settings], Field(min_length=1)]


@section
class Data:
    source: Source
    validation_fraction: Share
    split_seed: Seed
    images: optional(integer(100, 50_000, step=100))


@section
class Backbone:
    weights: Weights
    image_size: optional(integer(32, 512, step=32))
    trainable_from: Block


@section
class Features:
    views: Count
    augmentation_seed: Seed
    normalization: Normalization
    train_eval_images: integer(10)
    precision: Precision


@section
class Train:
    epochs: Count
    batch_size: AtLeastTwo
    head_lr: Positive
    block_lr: NotNegative
    dropout: Dropped
    placement: Placement
    block_bn_statistics: BlockStatistics
    frn_learned_eps: Positive
    precision: Precision


@section
class Landscape:
    points: Odd
    span: Positive
    seed: Seed


@section
class Gradients:
    batch_size: AtLeastTwo
    batches: AtLeastTwo
    seed: Seed


@section
class Curvature:
    images: integer(10)
    eigenvalues: Count
    probes: AtLeastTwo
    lanczos_steps: integer(3)
    lanczos_repeats: Count
    box: Positive
    ball: Positive
    pairs: AtLeastTwo
    grid_images: integer(10)
    grid_points: Odd
    span: Positive
    seed: Seed


@section
class Variants:
    seeds: Seeds
    epochs: Count
    percent: Percent
    thresholds: listed(Positive, "numbers > 0")
    batch_sizes: BatchSizes
    placements: listed(Placement, ", ".join(PLACEMENTS))


@section
class CacheStudy:
    views: listed(Count, "integers >= 1")
    norm: NormName


@section
class Recipe:
    """How a network trains from images: what the sections of such studies share."""

    seeds: Seeds
    epochs: Count
    batch_size: AtLeastTwo
    optimizer: Optimizer
    lr: Positive
    weight_decay: NotNegative
    schedule: Schedule
    percent: Percent
    augmentation_seed: optional(Seed)
    precision: Precision


@section
class Baseline(Recipe):
    percents: listed(Annotated[Percent, AfterValidator(refuse_long)], f"numbers in (0, 100], {NAMED}")


@section
class Unfreezing:
    seeds: Seeds
    epochs: Count
    percent: Percent
    views: Count
    norm: NormName
    block_lr: NotNegative
    trainable_from: listed(Block, f"integers from 3 to {LAST}")
    embedded_images: integer(100)


@variant
class SmallCNNVariant(TypedDict):
    norm: choice(SMALL_CNN_NORMS)


@section
class SmallCNN(Recipe):
    variants: named(SmallCNNVariant)


@section
class SmallCNNSweep:
    """What the sweep changes of the recipe of `small_cnn`."""

    seeds: Seeds
    epochs: Count
    percent: Percent
    batch_sizes: BatchSizes
    lrs: listed(Annotated[Positive, AfterValidator(refuse_long)], f"numbers > 0, {NAMED}")


@variant
class MobileNetV2Variant(TypedDict, total=False):
    """What is not given is as MobileNetV2Settings has it."""

    width: Positive
    expansion: Count
    kernel_size: allow(integer(1), "an integer >= 1 (odd)", AfterValidator(refuse_even))
    activation: choice(ACTIVATIONS)
    squeeze: optional(Count)
    dropout: Dropped


@section
class MobileNetV2(Recipe):
    strides: Strides
    variants: named(MobileNetV2Variant)


@section
class Params:
    """The whole file."""

    norms: listed(NormName, ", ".join(NORMS))
    clip: Positive
    noclip: Never
    seeds: Seeds
    device: Device
    data: Data
    backbone: Backbone
    features: Features
    train: Train
    landscape: Landscape
    gradients: Gradients
    curvature: Curvature
    variants: Variants
    cache_study: CacheStudy
    baseline: Baseline
    unfreezing: Unfreezing
    small_cnn: SmallCNN
    small_cnn_sweep: SmallCNNSweep
    mobilenetv2: MobileNetV2


def keys_of(kind: Any) -> dict[str, Any]:
    """What a section or a variant may hold, with the types."""
    return {field.name: field.type for field in fields(kind)} if is_dataclass(kind) else kind.__annotations__


def names_beside(location: tuple) -> str:
    """The keys that the schema has where an unknown one was found."""
    kind: Any = Params
    for name in location[:-1]:
        kind = get_args(get_args(kind)[0])[1] if get_origin(kind) is Annotated else keys_of(kind)[name]
    return ", ".join(keys_of(kind))


def describe_error(error: dict) -> str:
    """One problem found by pydantic, in a line."""
    location, value, kind = error["loc"], error["input"], error["type"]
    name = ".".join(map(str, location))
    if location[-1:] == ("[key]",):
        return f"{'.'.join(location[:-2])} has a variant called {value!r}; its name must be {error['msg']}"
    if kind == "allowed":
        return f"{name} is {value!r}; it must be {error['msg']}" + show_number(value, error["msg"])
    if kind == "missing":
        return f"{name} is missing"
    if kind == "too_short":
        return f"{name} is {value!r}; it must have a variant at least"
    if kind in ("dataclass_type", "dict_type"):
        hint = ", or {} where it changes nothing" if len(location) > 2 else ""  # of a variant
        return f"{name or 'params.yaml'} must be a section of keys and values{hint}"
    return f"{name} is unknown; known here: {names_beside(location)}"


def show_number(value: Any, allowed: str) -> str:
    """How to write a number that was given as text."""
    numeric = allowed.startswith(("a number", "an integer", "null or an integer"))
    try:
        return f", written without quotes: {float(value):g}" if isinstance(value, str) and numeric else ""
    except ValueError:
        return ""


def read_yaml(path: Path) -> Any:
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist; run the command from the root of the repository") from None
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        raise ParamsError(f"{path} cannot be used: {error.problem} in line {line}; leave one of the two") from None
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ParamsError(f"{path} cannot be read: {error}") from None


def load_params(path: str | Path = "params.yaml", task: Collection[str] = ()) -> Params:
    """The checked parameters; raises ParamsError with every problem at once.

    `task` names what is to run, such as a side study: only then do its settings have to fit the data.
    """
    values, problems = read_yaml(Path(path)), []
    try:
        params = TypeAdapter(Params).validate_python(values)
        problems = find_conflicts(params, task)
    except ValidationError as error:
        problems = [describe_error(found) for found in error.errors(include_url=False)]
    if problems:
        raise ParamsError(f"{path} cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return params
