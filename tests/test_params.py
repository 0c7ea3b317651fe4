import functools
import importlib
import json
import subprocess
import sys
import tarfile
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass, replace
from itertools import product

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.core import params as schema
from stages.core.conflicts import count_images
from stages.core.params import NORMS, WEIGHTS, Params, ParamsError, load_params
from stages.core.stage import run_stage
from stages.data.cifar10 import make_split
from stages.mobilenetv2 import network as mobilenetv2
from stages.models.configurations import list_keys, make_key
from stages.models.imagenet_weights import CONVENTIONS
from stages.models.norms import load_norm
from stages.reporting import image_labels
from stages.small_cnn import network as small_cnn
from stages.training import from_images as image_training
from tests.conftest import ROOT

SECTIONS = {field.name for field in fields(Params) if is_dataclass(field.type)}


canonical = functools.partial(json.dumps, sort_keys=True)  # tells 1 from 1.0


def read_committed() -> dict:
    return YAML(typ="safe").load((ROOT / "params.yaml").read_text())


@pytest.fixture
def write_values(tmp_path):
    def write(values: dict):
        path = tmp_path / "params.yaml"
        with path.open("w") as file:
            YAML(typ="safe").dump(values, file)
        return path

    return write


@pytest.fixture
def write_params(write_values):
    """Write the repository's params.yaml with changes and return its path."""

    def write(**changes):
        values = read_committed()
        for key, value in changes.items():
            section, _, name = key.rpartition("__")
            (values[section] if section else values)[name] = value
        return write_values(values)

    return write


@pytest.fixture
def refuse_values(write_values):
    """What load_params says of these contents, which it must refuse."""

    def load(values: dict, *task: str) -> str:
        with pytest.raises(ParamsError) as error:
            load_params(write_values(values), task)
        return str(error.value)

    return load


@pytest.fixture
def refuse(write_params):
    """What load_params says of the repository's params.yaml with changes, which it must refuse."""

    def load(*task: str, **changes) -> str:
        with pytest.raises(ParamsError) as error:
            load_params(write_params(**changes), task)
        return str(error.value)

    return load


def test_the_committed_parameters_are_valid_and_frozen():
    params = load_params(ROOT / "params.yaml")
    assert params.clip == 1.0 and params.noclip is None and params.device == "auto"
    assert list_keys(params.norms)[:2] == ["batchnorm-noclip", "batchnorm-clip"]
    for target in (params, params.train):
        with pytest.raises(FrozenInstanceError):
            target.precision = "float32"


def test_settings_are_kept_as_they_were_given(write_params):
    """They are saved in checkpoints: an integer where a fraction would be allowed stays an integer."""
    path = write_params(train__head_lr=1, train__dropout=0, small_cnn__percent=50.0)
    values, params = YAML(typ="safe").load(path.read_text()), load_params(path)
    for section in SECTIONS:
        for key, value in asdict(getattr(params, section)).items():
            assert canonical(value) == canonical(values[section][key])
    order = "epochs batch_size head_lr block_lr dropout placement block_bn_statistics frn_learned_eps precision"
    assert list(asdict(params.train)) == order.split()


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("clip", 0, "a number > 0"),
        ("clip", "1e-3", "a number > 0, written without quotes: 0.001"),
        ("clip", "much", "a number > 0"),
        ("data__images", "1000", "a multiple of 100), written without quotes: 1000"),
        ("clip", True, "a number > 0"),
        ("clip", float("inf"), "a number > 0"),
        ("clip", float("nan"), "a number > 0"),
        ("clip", 10**400, "a number > 0"),
        ("noclip", 1.0, "null (those configurations never clip)"),
        ("noclip", "null", "null (those configurations never clip)"),
        ("norms", ["batchnorm", "instancenorm"], ", ".join(NORMS)),
        ("norms", [], "a non-empty list"),
        ("norms", "frn", "a non-empty list"),
        ("norms", [["frn"]], "a non-empty list"),
        ("seeds", [0, 0], "without repeats"),
        ("seeds", [0, True], "integers from 0"),
        ("seeds", [2**32], "integers from 0 to 4294967295"),
        ("device", "gpu", "one of auto, cpu, cuda, mps"),
        ("features__views", 0, "an integer >= 1"),
        ("features__views", 3.0, "an integer >= 1"),
        ("features__views", True, "an integer >= 1"),
        ("features__normalization", "imagenet", "one of cifar10, backbone"),
        ("train__epochs", 0, "an integer >= 1"),
        ("train__epochs", None, "an integer >= 1"),
        ("train__dropout", 1.0, "a number in [0, 1)"),
        ("train__placement", "pixel", "one of vector, spatial"),
        ("backbone__image_size", 100, "null or an integer from 32 to 512 (a multiple of 32)"),
        ("backbone__trainable_from", 19, "an integer from 3 to 18"),
        ("backbone__weights", "no-such-file.pth", "keras_160"),
        ("backbone__weights", "no-such-file.pth", "an absolute path for --temp and queued experiments"),
        ("backbone__weights", str(ROOT / "stages"), "an existing .pth file"),
        ("backbone__weights", "x" * 5000, "an existing .pth file"),
        ("data__source", "no-such-folder", "torchvision"),
        ("data__source", "no-such-folder", "an absolute path for --temp and queued experiments"),
        ("data__source", str(ROOT / "stages"), "cifar-10-batches-py folder or .tar.gz"),
        ("data__source", str(ROOT / "params.yaml"), "cifar-10-batches-py folder or .tar.gz"),
        ("data__images", 150, "a multiple of 100"),
        ("data__validation_fraction", 1.0, "a number between 0 and 1, neither included"),
        ("landscape__points", 10, "an integer >= 3 (odd)"),
        ("gradients__batches", 1, "an integer >= 2"),
        ("curvature__pairs", 1, "an integer >= 2"),
        ("curvature__grid_points", 4, "an integer >= 3 (odd)"),
        ("variants__thresholds", [1.0, 0], "numbers > 0"),
        ("variants__thresholds", [0.1, 0.10000001], "without repeats"),
        ("variants__placements", ["pixel"], "vector, spatial"),
        ("cache_study__views", [1, 0], "integers >= 1"),
        ("cache_study__norm", "instancenorm", ", ".join(NORMS)),
        ("baseline__percents", [1, 100.0], "numbers in (0, 100], of at most six digits, without .0 at the end"),
        ("baseline__percents", [33.33333333], "of at most six digits"),
        ("unfreezing__trainable_from", [2], "integers from 3 to 18"),
        ("small_cnn__schedule", "linear", "one of constant, one_cycle, cosine, step"),
        ("small_cnn__augmentation_seed", -1, "null or an integer from 0"),
        ("small_cnn_sweep__lrs", [0.010000001], "of at most six digits"),
        ("mobilenetv2__strides", "reduce_4", "one of reduce_32, reduce_16, reduce_8"),
    ],
)
def test_a_bad_value_is_refused_with_what_is_allowed(refuse, key, value, allowed):
    message = refuse(**{key: value})
    assert f"{key.replace('__', '.')} is {value!r}; it must be " in message and allowed in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("study", "variant", "message"),
    [
        (
            "mobilenetv2",
            {"own": {"activaton": "silu"}},
            ".own.activaton is unknown; known here: width, expansion, kernel_",
        ),
        ("mobilenetv2", {"own": {"strides": "reduce_8"}}, ".own.strides is unknown; known here: width, "),
        (
            "mobilenetv2",
            {"own": {"activation": "swish"}},
            ".own.activation is 'swish'; it must be one of relu6, leaky_",
        ),
        ("mobilenetv2", {"own": {"width": "0.5"}}, ".own.width is '0.5'; it must be a number > 0, written without quo"),
        ("mobilenetv2", {"own": {"kernel_size": 4}}, ".own.kernel_size is 4; it must be an integer >= 1 (odd)"),
        ("mobilenetv2", {"own": {"expansion": 2.0}}, ".own.expansion is 2.0; it must be an integer >= 1"),
        ("mobilenetv2", {"own": None}, ".own must be a section of keys and values, or {} where it changes nothing"),
        ("mobilenetv2", {"own": ["silu"]}, ".own must be a section of keys and values, or {} where it changes nothing"),
        (
            "mobilenetv2",
            {"width_0.5": {}},
            " has a variant called 'width_0.5'; its name must be text of letters, digits",
        ),
        ("mobilenetv2", {"a/b": {}}, " has a variant called 'a/b'; its name must be text of letters, digits"),
        ("mobilenetv2", {"-b": {}}, " has a variant called '-b'; its name must be text of letters, digits"),
        ("mobilenetv2", {5: {}}, " has a variant called 5; its name must be text of letters, digits"),
        ("mobilenetv2", {}, " is {}; it must have a variant at least"),
        ("mobilenetv2", ["plain"], " must be a section of keys and values"),
        ("small_cnn", {"own": {}}, ".own.norm is missing"),
        (
            "small_cnn",
            {"own": {"norm": "frn"}},
            ".own.norm is 'frn'; it must be one of batchnorm, groupnorm, layernorm",
        ),
    ],
)
def test_a_variant_that_no_network_has_is_refused_in_a_line(refuse, study, variant, message):
    found = refuse(**{f"{study}__variants": variant})
    assert f"- {study}.variants{message}" in found and found.count("\n") == 1


def test_a_variant_of_ones_own_needs_nothing_but_its_lines(write_params):
    own = {"wide-2": {}, "small_SE": {"width": 1, "squeeze": None, "dropout": 0}}
    found = load_params(write_params(mobilenetv2__variants=own)).mobilenetv2.variants
    assert canonical(found) == canonical(own)


def test_all_problems_are_reported_at_once(refuse):
    message = refuse(
        clip=-1, train__epochs=0, train__epoch=3, surprise=1, curvature__pairs=1, mobilenetv2__variants={"x": {"y": 1}}
    )
    for part in (
        "clip is -1",
        "train.epochs is 0",
        "train.epoch is unknown; known here: epochs, batch_size",
        "surprise is unknown; known here: norms, clip",
        "curvature.pairs is 1",
        "mobilenetv2.variants.x.y is unknown",
    ):
        assert part in message


@pytest.mark.parametrize("name", ["lib", "analysis", "statistics", "report", "neighbours", "Train", 1])
def test_a_key_that_nothing_reads_is_refused(refuse_values, name):
    values = read_committed() | {name: {}}
    assert f"{name} is unknown; known here: norms, clip, noclip, seeds, device, data, " in refuse_values(values)


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_section_is_needed_and_holds_keys(refuse_values, section):
    for content in (None, 3, [1, 2]):
        assert f"- {section} must be a section of keys and values" in refuse_values(
            read_committed() | {section: content}
        )
    values = read_committed()
    del values[section]
    assert f"- {section} is missing" in refuse_values(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a section of keys and values"),
        (b"- 1", "must be a section of keys and values"),
        (b"clip: 1\nclip: 2", 'found duplicate key "clip" with value "2" (original value: "1") in line 2'),
        (b"clip: [1", "is not valid YAML"),
        (b"clip: \xff", "cannot be read"),
        (b"a: 1\n---\nb: 2", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError) as error:
        load_params(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_missing_key_and_a_missing_file_are_named(tmp_path, refuse_values):
    values = read_committed()
    del values["clip"], values["train"]["epochs"]
    message = refuse_values(values)
    assert "- clip is missing" in message and "- train.epochs is missing" in message
    with pytest.raises(ParamsError, match="does not exist"):
        load_params(tmp_path / "absent.yaml")
    with pytest.raises(ParamsError, match="cannot be read"):
        load_params(tmp_path)


def test_files_of_ones_own_are_accepted(tmp_path, write_params):
    weights, folder, archive = tmp_path / "own.pth", tmp_path / "cifar-10-batches-py", tmp_path / "cifar.tar.gz"
    weights.touch()
    folder.mkdir()
    (folder / "data_batch_1").touch()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    for source in (folder, archive):
        params = load_params(write_params(data__source=str(source), backbone__weights=str(weights)))
        assert (params.data.source, params.backbone.weights) == (str(source), str(weights))


@pytest.mark.parametrize(("images", "fraction"), product([None, 100, 1000], [0.2, 0.1, 0.33333, 0.905]))
def test_the_parts_are_counted_as_the_split_makes_them(images, fraction):
    labels = [np.repeat(np.arange(10), count // 10) for count in (50_000, 10_000)]
    split = make_split(*labels, fraction, seed=0, images=images)
    data = replace(load_params(ROOT / "params.yaml").data, validation_fraction=fraction, images=images)
    assert count_images(data) == {part: len(chosen) for part, chosen in split.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__validation_fraction": 1e-9}, "is 1e-09, which leaves 50000 images for training and 0 for validation"),
        ({"data__validation_fraction": 0.99999}, "is 0.99999, which leaves 0 images for training and 50000"),
        (
            {"data__images": 100, "data__validation_fraction": 0.05},
            "which leaves 95 images for training and 5 for validation; each needs 10 at least, one of every class",
        ),
        ({"train__batch_size": 40_001}, "train.batch_size is 40001, and there are only 40000 training images"),
        ({"gradients__batches": 1251}, "gradients.batches x gradients.batch_size is 40032, and there are only 40000"),
        ({"curvature__grid_images": 1001}, "curvature.grid_images is 1001; it must be at most curvature.images"),
        ({"curvature__eigenvalues": 501}, "curvature.eigenvalues is 501; 1000 images allow at most 500"),
    ],
)
def test_values_that_do_not_go_together_are_refused(refuse, changes, message):
    assert message in refuse(**changes)


def test_the_largest_values_that_go_together_are_accepted(write_params):
    load_params(write_params(train__batch_size=40_000, gradients__batches=1250, curvature__eigenvalues=500))


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("thresholds", {"variants__percent": 0.1}, "train.batch_size is 64, and there are only 40 training images"),
        ("placements", {"variants__percent": 0.1}, "train.batch_size is 64, and there are only 40 training images"),
        ("batch_sizes", {"variants__percent": 0.25}, "variants.batch_sizes' largest is 128, and there are only 100"),
        ("baseline", {"baseline__percents": [100, 0.1]}, "only 40 training images (0.1% of 40000)"),
        ("small_cnn", {"small_cnn__batch_size": 40_001}, "there are only 40000 training images"),
        ("small_cnn_sweep", {"small_cnn_sweep__percent": 0.1}, "small_cnn_sweep.batch_sizes' largest is 256, and"),
        ("mobilenetv2", {"mobilenetv2__percent": 0.1}, "mobilenetv2.batch_size is 64, and there are only 40"),
        ("unfreezing", {"unfreezing__percent": 0.1}, "train.batch_size is 64, and there are only 40"),
        ("unfreezing", {"backbone__trainable_from": 17}, "has 18, and the trunk ends at features.17"),
        (
            "unfreezing",
            {"unfreezing__percent": 1, "features__train_eval_images": 20},
            "which leaves none of 20 images for training accuracy",
        ),
        ("unfreezing", {"data__images": 100, "gradients__batches": 2}, "there are only 20: raise data.images"),
    ],
)
def test_a_side_study_that_does_not_fit_the_data_is_refused_and_stops_no_other(
    refuse, write_params, task, changes, message
):
    assert message in refuse(task, **changes)
    load_params(write_params(**changes))


@pytest.mark.parametrize(
    ("stage", "arguments", "changes", "message"),
    [
        ("prepare", [], {"gradients__batches": 1, "mobilenetv2__variants": {}}, "mobilenetv2.variants is {}"),
        ("variants.train", ["batch_sizes"], {"variants__percent": 0.25}, "there are only 100 training images"),
        ("unfreezing.features", ["18"], {"backbone__trainable_from": 17}, "the trunk ends at features.17"),
    ],
)
def test_a_stage_checks_the_whole_file_and_its_own_study(monkeypatch, write_params, stage, arguments, changes, message):
    main = importlib.import_module(f"stages.{stage}").main
    monkeypatch.chdir(write_params(**changes).parent)
    monkeypatch.setattr(sys, "argv", [stage, *arguments])
    with pytest.raises(SystemExit, match="error: params.yaml cannot be used") as stop:
        run_stage(main, *arguments, timing="none")
    assert message in str(stop.value)


def test_an_unknown_configuration_is_refused():
    assert make_key("frn", "clip") == "frn-clip"
    with pytest.raises(ParamsError, match=", ".join(NORMS)):
        make_key("instancenorm", "clip")


def test_every_name_that_is_allowed_stands_for_something():
    assert [load_norm(norm).label for norm in NORMS] and {"batchnorm", "layernorm", "frn"} <= set(NORMS)
    assert set(schema.OPTIMIZERS) == set(image_training.OPTIMIZERS) == set(image_labels.OPTIMIZERS)
    assert set(schema.SCHEDULES) == set(image_training.SCHEDULES) == set(image_labels.SCHEDULES)
    assert set(WEIGHTS) == {"auto", *CONVENTIONS}
    assert list(schema.STRIDES) == list(mobilenetv2.STRIDES)
    assert list(schema.ACTIVATIONS) == list(mobilenetv2.ACTIVATIONS)
    assert list(schema.SMALL_CNN_NORMS) == list(small_cnn.NORM_LAYERS)
    settings = {field.name for field in fields(mobilenetv2.MobileNetV2Settings)}
    assert set(schema.MobileNetV2Variant.__annotations__) == settings - {"classes", "strides"}


def test_the_schema_needs_no_torch():
    program = "import sys, stages.core.params; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
