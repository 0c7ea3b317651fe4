import platform
import shutil
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch

from stages.core.files import StageError, write_json
from stages.data import feature_extraction
from stages.data.augmentation import crop_and_flip, draw_augmentation
from stages.data.cifar10 import CIFAR10Data
from stages.data.feature_cache import FeatureCache
from stages.data.feature_extraction import make_clean_parts, make_extractor, make_view, write_parts
from stages.models.trunk import IMAGENET_MEAN, IMAGENET_STD, Trunk
from tests.conftest import ROOT
from tests.synthetic import make_model

CPU = torch.device("cpu")


@pytest.fixture
def data(rng):
    arrays = {
        "train_images": rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8),
        "train_labels": np.arange(60, dtype=np.uint8) // 2 % 10,
        "test_images": rng.integers(0, 256, (21, 32, 32, 3), dtype=np.uint8),
        "test_labels": np.arange(21, dtype=np.uint8) % 10,
    }
    split = {"train": np.arange(0, 60, 2), "val": np.arange(1, 60, 2), "test": np.arange(21)}
    return CIFAR10Data(arrays, split)


@pytest.fixture
def trunk(backbone_state):
    return Trunk(backbone_state, 32, IMAGENET_MEAN, IMAGENET_STD, "symmetric")


def fill(data, trunk, folder, extract=None):
    parts = [make_view(data, view, 5) for view in range(2)] + make_clean_parts(data, 20, 5)
    extract = extract or make_extractor(trunk, torch.float32, CPU, images=100)
    write_parts(parts, lambda: extract, (1, 1, 320), folder, batch=16)
    write_json(folder / "about.json", {})


def test_the_cache_holds_the_trunks_output_of_every_image_and_view(data, trunk, tmp_path):
    fill(data, trunk, tmp_path)
    cache = FeatureCache(tmp_path)
    draws = torch.from_numpy(draw_augmentation(60, 5, 1)[data.split["train"]])
    expected = trunk(crop_and_flip(torch.from_numpy(data.images("train")), draws)).half()
    torch.testing.assert_close(cache.features("train_view1"), expected, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(
        cache.features("test"), trunk(torch.from_numpy(data.images("test"))).half(), rtol=2e-3, atol=1e-3
    )
    training = cache.training_data(CPU)
    assert len(training.views) == 2 and torch.equal(training.views[1].cpu(), cache.features("train_view1"))
    np.testing.assert_array_equal(training.labels, data.labels("train"))
    np.testing.assert_array_equal(training.val_labels, data.labels("val"))
    assert np.bincount(cache.labels("train_eval")).tolist() == [2] * 10


def test_accuracy_through_the_cache_is_that_of_a_plain_pass_over_images(data, trunk, backbone_state, tmp_path):
    """In float32 the logits agree to the rounding of the stored float16."""
    fill(data, trunk, tmp_path)
    model = make_model(backbone_state, "layernorm", seed=0).eval()
    logits = model(FeatureCache(tmp_path).features("val"))
    expected = model(trunk(torch.from_numpy(data.images("val"))))
    torch.testing.assert_close(logits, expected, rtol=1e-2, atol=5e-3)
    assert torch.equal(logits.argmax(1), expected.argmax(1))


def test_a_killed_extraction_goes_on_where_it_stopped(data, trunk, tmp_path):
    fill(data, trunk, tmp_path / "whole")
    real = make_extractor(trunk, torch.float32, CPU, images=100)
    calls = []

    def dies_at_third_batch(pixels):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(pixels)

    with pytest.raises(KeyboardInterrupt):
        fill(data, trunk, tmp_path / "killed", dies_at_third_batch)
    torn = tmp_path / "killed" / "train_view0.npy"
    with open(torn, "ab") as file:
        file.write(b"half a row")  # as a kill in the middle of a write leaves it

    seen = []
    fill(data, trunk, tmp_path / "killed", lambda pixels: seen.append(len(pixels)) or real(pixels))
    assert sum(seen) == 30 * 2 + 20 + 30 + 21 - 30  # the first view was complete
    for path in (tmp_path / "whole").glob("*.npy"):
        assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes(), path.name


def test_too_little_disk_is_an_error_before_any_work(data, trunk, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))

    def work():
        raise AssertionError("work was started")

    with pytest.raises(StageError, match=r"free some disk, or lower features.views"):
        write_parts([make_view(data, 0, 0)], work, (1, 1, 320), tmp_path / "scratch", 16)


def test_the_disk_need_is_announced(data, trunk, tmp_path, capsys):
    fill(data, trunk, tmp_path)
    rows = 30 * 2 + 20 + 30 + 21
    assert f"{rows * 320 * 2 / 1e9:.2f} GB to write" in capsys.readouterr().out


def test_a_missing_cache_says_what_to_run(tmp_path):
    with pytest.raises(StageError, match="dvc repro features"):
        FeatureCache(tmp_path)


def test_one_batch_shape_only(data, trunk, tmp_path):
    """A second shape would be compiled again, and round differently when a killed run goes on."""
    shapes = set()
    real = trunk.forward
    trunk.forward = lambda images: shapes.add(tuple(images.shape)) or real(images)
    fill(data, trunk, tmp_path)
    assert shapes == {(feature_extraction.BATCH_SIZE["cpu"], 32, 32, 3)}


def test_compiled_bfloat16_extraction_stays_near_float32(trunk, rng):
    """The path that the study runs: compiled, with weights folded in."""
    images = torch.from_numpy(rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8))
    exact = make_extractor(trunk, torch.float32, CPU, images=1)(images).float()
    rough = make_extractor(trunk, torch.bfloat16, CPU, images=10**6)(images).float()
    assert (rough - exact).norm() / exact.norm() < 0.05


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_not_fetched_from_the_system_again():
    """Pages that the system supplies while 40 MB are used again and again: 10,000 each time, or none after a while."""
    code = """
import resource, torch
from stages.data.feature_extraction import keep_freed_memory
keep_freed_memory()
for _ in range(30):
    torch.ones(10_000_000)
start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1000
