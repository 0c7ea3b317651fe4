import pytest
from ruamel.yaml import YAML

from stages.lib.params import ParamsError, configuration_key, load_params
from tests.conftest import ROOT


@pytest.fixture
def write_params(tmp_path):
    """Write the repository's params.yaml with changes and return its path."""

    def write(**changes):
        values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
        for key, value in changes.items():
            section, _, name = key.rpartition("__")
            (values[section] if section else values)[name] = value
        path = tmp_path / "params.yaml"
        with path.open("w") as file:
            YAML(typ="safe").dump(values, file)
        return path

    return write


def test_the_committed_parameters_are_valid():
    params = load_params(ROOT / "params.yaml")
    assert params.clip == 1.0 and params.noclip is None
    assert params.keys[:2] == ["batchnorm-noclip", "batchnorm-clip"]


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("clip", 0, "> 0"),
        ("clip", "1e-3", "> 0"),
        ("clip", True, "> 0"),
        ("clip", float("inf"), "> 0"),
        ("noclip", 1.0, "null"),
        ("norms", ["batchnorm", "instancenorm"], "batchnorm, layernorm, frn"),
        ("norms", [], "non-empty"),
        ("seeds", [0, 0], "without repeats"),
        ("features__views", 0, ">= 1"),
        ("features__normalization", "imagenet", "cifar10, backbone"),
        ("train__epochs", 0, ">= 1"),
        ("train__dropout", 1.0, "[0, 1)"),
        ("train__placement", "pixel", "vector, spatial"),
        ("backbone__image_size", 100, "multiple of 32"),
        ("backbone__weights", "no-such-file.pth", "keras_160"),
        ("data__source", "no-such-folder", "torchvision"),
        ("data__images", 150, "multiple of 100"),
        ("landscape__points", 10, "odd"),
        ("cache_study__views", [1, 0], ">= 1"),
    ],
)
def test_a_bad_value_is_refused_with_what_is_allowed(write_params, key, value, allowed):
    with pytest.raises(ParamsError) as error:
        load_params(write_params(**{key: value}))
    assert key.replace("__", ".") in str(error.value) and allowed in str(error.value)


def test_all_problems_are_reported_at_once(write_params):
    path = write_params(clip=-1, train__epochs=0, train__epoch=3, surprise=1)
    with pytest.raises(ParamsError) as error:
        load_params(path=path)
    for part in ("clip is -1", "train.epochs is 0", "train.epoch is unknown", "surprise is unknown"):
        assert part in str(error.value)


def test_a_side_study_checks_its_own_section(write_params):
    path = write_params(cache_study__norm="groupnorm")
    assert load_params(path=path).clip == 1.0
    with pytest.raises(ParamsError, match="cache_study.norm is 'groupnorm'"):
        load_params(path)


def test_a_missing_key_and_a_missing_file_are_named(tmp_path, write_params):
    path = write_params()
    path.write_text(path.read_text().replace("clip:", "klip:", 1))
    with pytest.raises(ParamsError, match="clip is missing"):
        load_params(path=path)
    with pytest.raises(ParamsError, match="does not exist"):
        load_params(path=tmp_path / "absent.yaml")


def test_an_unknown_configuration_is_refused():
    assert configuration_key("frn", "clip") == "frn-clip"
    with pytest.raises(ParamsError, match="batchnorm, layernorm, frn"):
        configuration_key("groupnorm", "clip")
