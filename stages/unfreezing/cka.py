"""Linear centered kernel alignment: how similar two layers represent the same images.

Kornblith et al. 2019, arXiv 1905.00414. With X (N, p) and Y (N, q) centered per feature, equations 1 and 4 give
CKA = |Y^T X|^2 / (|X^T X| |Y^T Y|), norms being Frobenius norms. 1 for representations that are equal but for rotation
and one common scale; near 0 for unrelated ones if there are many more images than features.
"""

import torch


def center_features(x: torch.Tensor) -> torch.Tensor:
    """float64 (N, p) with zero mean per feature from activations (N, ...): sums over fourth powers need the range."""
    x = x.flatten(1).double()
    if (x == x[0]).all():
        raise ValueError("all images have the same activations: their similarity is not defined")
    return x - x.mean(0)


def sum_squared_products(x: torch.Tensor, y: torch.Tensor) -> float:
    """|Y^T X|^2 = <X X^T, Y Y^T> (equation 1), by whichever side takes fewer multiplications."""
    images, p, q = len(x), x.shape[1], y.shape[1]
    if p * q <= images * (p + q):
        return (y.T @ x).square().sum().item()
    return ((x @ x.T) * (y @ y.T)).sum().item()


def compute_linear_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """CKA in [0, 1] of activations (N, ...) and (N, ...) of the same images, maps being flattened."""
    if len(x) != len(y):
        raise ValueError(f"{len(x)} images are compared with {len(y)}; activations must be of the same images")
    x, y = center_features(x), center_features(y)
    scale = sum_squared_products(x, x) * sum_squared_products(y, y)
    return sum_squared_products(x, y) / scale**0.5
