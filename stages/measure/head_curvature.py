"""What is measured of a trained head's curvature, as flat figures and as tables for pictures."""

import numpy as np
import pandas as pd
import torch

from stages.measure.hessian import (
    HeadHessian,
    ball_sharpness,
    box_sharpness,
    convex_share,
    curve_along,
    estimate_density,
    estimate_trace,
    find_eigenpairs,
    flatten,
    make_loss,
    ratio_of,
    slice_loss,
    weights_of,
)
from stages.measure.loss_surface import Direction, compute_surface, measure_surface
from stages.models.heads import Head
from stages.models.transfer_model import TransferModel

SLICE = np.linspace(-2, 2, 41)  # along a unit eigenvector
PATH = np.linspace(-0.25, 1.5, 36)  # 0: initial weights, 1: final weights
SURFACE_POINTS = 11  # per direction of a pair
ENDS = ("min", "max")
SUMMARY = "lambda_max lambda_min ratio trace trace_error sharpness_box sharpness_ball gap".split()


class HeadCurvature:
    """One trained head on some images: its Hessian, the eigenpairs at both ends, its loss and its weights."""

    def __init__(self, head: Head, block: torch.Tensor, labels: torch.Tensor, eigenvalues: int, seed: int):
        self.hessian = HeadHessian(head, block, labels)
        self.values, self.vectors = find_eigenpairs(self.hessian, eigenvalues, seed)
        self.loss, self.weights, self.seed = make_loss(head, block, labels), weights_of(head), seed

    def measure(self, probes: int, box: float, ball: float) -> dict[str, float]:
        """lambda_max (the largest eigenvalue, then lambda_max2, ...), lambda_min, trace, ratio and sharpness."""
        trace, error = estimate_trace(self.hessian, self.values, self.vectors, probes, self.seed)
        ranks = ["", *range(2, len(self.values) // 2 + 1)]
        return {
            **{f"lambda_max{rank}": value for rank, value in zip(ranks, self.values[::-1], strict=False)},
            **{f"lambda_min{rank}": value for rank, value in zip(ranks, self.values, strict=False)},
            "ratio": ratio_of(self.values[0], self.values[-1]),
            "trace": trace,
            "trace_error": error,
            "sharpness_box": box_sharpness(self.loss, self.weights, box),
            "sharpness_ball": ball_sharpness(self.loss, self.weights, ball),
        }

    def tabulate_density(self, steps: int, repeats: int) -> pd.DataFrame:
        lowest, highest = self.values[0], self.values[-1]
        values, density = estimate_density(self.hessian, lowest, highest, steps, repeats, self.seed)
        return table("density", values, density)

    def tabulate_slices(self, initial: torch.Tensor) -> pd.DataFrame:
        """Loss along the highest eigenvectors (eigenvector1 the first) and on the line from `initial` to the weights.

        Only parameters move: BatchNorm's statistics and the block are the trained ones everywhere.
        """
        tops = self.vectors.flip(1).T[: len(self.values) // 2]
        slices = [
            table(f"eigenvector{rank}", SLICE, slice_loss(self.loss, self.weights, vector, SLICE))
            for rank, vector in enumerate(tops, 1)
        ]
        path = slice_loss(self.loss, initial, self.weights - initial, PATH)
        return pd.concat([*slices, table("path", PATH, path)])


def table(measure: str, x: np.ndarray, value: np.ndarray, y: np.ndarray | float = np.nan) -> pd.DataFrame:
    """Tidy rows, of which the tables of pictures are made."""
    return pd.DataFrame({"measure": measure, "x": x, "y": y, "value": value})


def tabulate_grid(grid: np.ndarray, extremes: np.ndarray) -> pd.DataFrame:
    """lambda_min and lambda_max (n, n, 2) over grid x grid; x is alpha, y is beta."""
    alphas, betas = (values.ravel() for values in np.meshgrid(grid, grid, indexing="ij"))
    return pd.concat([table(f"lambda_{end}", alphas, extremes[..., k].ravel(), betas) for k, end in enumerate(ENDS)])


def measure_pair(
    model: TransferModel,
    hessian: HeadHessian,
    features: torch.Tensor,
    labels: torch.Tensor,
    a: Direction,
    b: Direction,
    span: float,
) -> dict[str, float]:
    """One pair of directions: curvature, the mean of d^T H d over both, in nats per squared unit of direction.

    And flat_share, that of `measure_surface`, on a coarse grid over [-span, span]^2.
    """
    grid = np.linspace(-span, span, SURFACE_POINTS)
    surface = compute_surface(model, features, labels, grid, grid, a, b, on_images=lambda n: None)
    return {
        "curvature": float(np.mean([curve_along(hessian, flatten(direction)) for direction in (a, b)])),
        "flat_share": float(measure_surface(grid, grid, *surface)["flat_share"]),
    }


def summarize_curvature(seeds: pd.DataFrame, extremes: np.ndarray) -> dict[str, float]:
    """Means over seeds; `_spread` is the range over pairs; convex_share and grid_ratio are of the first seed's grid."""
    metrics = {name: float(seeds[name].mean()) for name in SUMMARY}
    for name in ("curvature", "flat_share"):
        pairs = seeds.filter(like=f"{name}_pair")
        metrics |= {name: float(pairs.mean().mean()), f"{name}_spread": float(np.ptp(pairs, axis=1).mean())}
    lowest, highest = extremes[..., 0], extremes[..., 1]
    grid_ratio = float(np.median(ratio_of(lowest, highest)))
    return metrics | {"convex_share": convex_share(lowest, highest), "grid_ratio": grid_ratio}
