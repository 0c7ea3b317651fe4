"""What the layers of MobileNetV2 compute from images, before and after fine-tuning."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from stages.models.trunk import StateDict, Trunk
from stages.unfreezing.cka import compute_linear_cka

BATCH_SIZE = 100
NEIGHBORS = 10


def replace_blocks(backbone: StateDict, trained: StateDict) -> StateDict:
    """The state dict of torchvision's `features` with those blocks that a checkpoint's `state_dict` has trained."""
    prefix = "features."
    blocks = {name.removeprefix(prefix): value for name, value in trained.items() if name.startswith(prefix)}
    unknown = blocks.keys() - backbone.keys()
    if unknown:
        raise ValueError(f"the backbone has no {', '.join(sorted(unknown))}")
    return backbone | blocks


def record_outputs(network: Trunk, layers: Sequence[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """float32 (N, C, H, W) of each layer of `network.features`, such as `14.conv.0`, for uint8 (N, 32, 32, 3)."""
    found: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
    handles = [
        network.features.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: found[layer].append(output.clone())
        )
        for layer in layers
    ]
    try:
        with torch.no_grad():
            for batch in images.split(BATCH_SIZE):
                network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: torch.cat(outputs) for layer, outputs in found.items()}


def pool(outputs: torch.Tensor) -> np.ndarray:
    """Mean over positions: (N, C, H, W) -> (N, C)."""
    return outputs.mean((2, 3)).numpy()


def compare_layers(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> dict[str, float]:
    """Linear CKA of each layer's outputs for the same images, before and after."""
    return {layer: compute_linear_cka(before[layer], after[layer]) for layer in before}


def share_of_like_neighbors(features: np.ndarray, labels: np.ndarray) -> float:
    """How many of an image's ten nearest others (Euclidean distance of (N, D)) are of its class: a mean share."""
    neighbors = NearestNeighbors(n_neighbors=NEIGHBORS).fit(features).kneighbors(return_distance=False)
    return float((labels[neighbors] == labels[:, None]).mean())


def embed(features: np.ndarray, seed: int, start: np.ndarray | None = None) -> np.ndarray:
    """(N, D) -> (N, 2) by t-SNE (van der Maaten and Hinton 2008), from `start` or from the principal components.

    Distances within a picture mean little beyond who is close to whom; a common start makes two pictures comparable.
    """
    return TSNE(init="pca" if start is None else start, random_state=seed, n_jobs=1).fit_transform(features)
