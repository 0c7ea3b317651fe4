"""What trains: MobileNetV2's features.18 and a head, fed with the trunk's stored outputs."""

import torch
import torch.nn.functional as F
from torch import nn

from stages.lib.backbone import TRUNK_END, StateDict, make_features
from stages.lib.heads import Head, make_head

BN_STATISTICS = ("frozen", "batch")


def sum_positions(x: torch.Tensor) -> torch.Tensor:
    """Sum over positions, (..., P, C) -> (..., C), as a product: torch's sum copies bfloat16 to float32 first."""
    return (x.new_ones(1, x.shape[-2]) @ x).squeeze(-2)


class PooledReLU6Linear(torch.autograd.Function):
    """mean over positions of relu6(x w^T + b): (N, P, C), (D, C), (D,) -> (N, D), all of one type.

    Written out because the map (N, P, D) is the largest tensor of a step: here it is computed once and overwritten by
    its own gradient, where autograd would keep and allocate four copies.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        activation = F.linear(x, weight, bias).clamp_(0, 6)
        ctx.save_for_backward(x, activation)
        return sum_positions(activation) / x.shape[1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple[None, torch.Tensor, torch.Tensor]:
        x, activation = ctx.saved_tensors
        grad = (grad / activation.shape[1])[:, None].expand_as(activation)
        torch.ops.aten.hardtanh_backward.grad_input(grad, activation, 0.0, 6.0, grad_input=activation)
        grad_map = activation.flatten(0, 1)
        bias_grad = sum_positions(grad_map)  # first, while the map is still in the processor's cache
        return None, grad_map.t() @ x.flatten(0, 1), bias_grad


class TransferModel(nn.Module):
    """features.18 (1x1 convolution, BN, ReLU6), pooling and a head: trunk outputs (N, H, W, 320) -> logits (N, 10).

    With `block_bn_statistics` frozen, the block's BN keeps its ImageNet statistics and trains scale and shift; they are
    folded into the convolution at each step, which is exact algebra. `product_dtype` is the type of the large products,
    the block's and FC1's; all else is float32. State dict names are torchvision's: features.18.*, then head.*.
    """

    def __init__(
        self,
        block: nn.Sequential,
        head: Head,
        block_bn_statistics: str = "frozen",
        product_dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.features = nn.ModuleDict({str(TRUNK_END): block})
        self.head = head
        self.block_bn_statistics = block_bn_statistics
        self.product_dtype = product_dtype

    @property
    def block(self) -> nn.Sequential:
        return self.features[str(TRUNK_END)]

    def folded_block(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (1280, 320) and bias (1280,) of the convolution with its BN, statistics frozen, folded in."""
        convolution, bn = self.block[0], self.block[1]
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        return convolution.weight.flatten(1) * scale[:, None], bn.bias - bn.running_mean * scale

    def activate_block(self, x: torch.Tensor) -> torch.Tensor:
        """features.18: (N, H, W, 320) -> (N, H, W, 1280), or pooled (N, 1280) where the head would pool first.

        Comes in `product_dtype`.
        """
        x = x.float().to(self.product_dtype)  # twice as fast as from float16 directly
        if self.training and self.block_bn_statistics == "batch":
            convolution, bn = self.block[0], self.block[1]
            z = F.linear(x, convolution.weight.flatten(1).to(x.dtype)).to(convolution.weight.dtype)
            return F.relu6(bn(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).to(x.dtype)
        weight, bias = (folded.to(x.dtype) for folded in self.folded_block())
        if self.head.placement == "vector":
            return PooledReLU6Linear.apply(x.flatten(1, 2), weight, bias)
        return F.relu6(F.linear(x, weight, bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.activate_block(x))


def make_model(
    backbone: StateDict,
    norm: str,
    *,
    seed: int,
    dropout_rate: float = 0.5,
    placement: str = "vector",
    frn_learned_eps: float = 1e-4,
    block_bn_statistics: str = "frozen",
    product_dtype: torch.dtype = torch.float32,
) -> TransferModel:
    """A model with the pretrained features.18 from `backbone`, the state dict of torchvision's `features`."""
    features = make_features("symmetric")  # features.18 is a 1x1 convolution: no padding convention
    features.load_state_dict(backbone)
    block = features[TRUNK_END]
    settings = {"dropout_rate": dropout_rate, "placement": placement, "frn_learned_eps": frn_learned_eps}
    head = make_head(norm, block[0].out_channels, seed=seed, **settings)
    return TransferModel(block, head, block_bn_statistics, product_dtype)


def make_model_from_settings(
    settings: dict, backbone: StateDict, product_dtype: torch.dtype = torch.float32
) -> TransferModel:
    """A model with the settings that a checkpoint carries as `params`."""
    return make_model(
        backbone,
        settings["norm"],
        seed=settings["seed"],
        dropout_rate=settings["dropout"],
        placement=settings["placement"],
        frn_learned_eps=settings["frn_learned_eps"],
        block_bn_statistics=settings["block_bn_statistics"],
        product_dtype=product_dtype,
    )


def assert_block_statistics_frozen(model: TransferModel, backbone: StateDict) -> None:
    """Raise AssertionError unless the block's BN statistics are bit for bit those that were loaded."""
    for name, value in model.block.named_buffers():
        if not torch.equal(value.cpu(), backbone[f"{TRUNK_END}.{name}"]):
            raise AssertionError(f"features.{TRUNK_END}.{name} changed although its statistics are frozen")
