"""What trains: the end of MobileNetV2, by default features.18, and a head, fed with the trunk's stored outputs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from stages.models.heads import Head, make_head
from stages.models.trunk import LAST, StateDict, make_features

BATCH_SIZE = 128  # images at a time through the blocks


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
        ctx.save_for_backward(x, weight, activation)
        return sum_positions(activation) / x.shape[1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        x, weight, activation = ctx.saved_tensors
        grad = (grad / activation.shape[1])[:, None].expand_as(activation)
        torch.ops.aten.hardtanh_backward.grad_input(grad, activation, 0.0, 6.0, grad_input=activation)
        grad_map = activation.flatten(0, 1)
        bias_grad = sum_positions(grad_map)  # first, while the map is still in the processor's cache
        x_grad = (grad_map @ weight).view_as(x) if ctx.needs_input_grad[0] else None
        return x_grad, grad_map.t() @ x.flatten(0, 1), bias_grad


class TransferModel(nn.Module):
    """features.18 (1x1 convolution, BN, ReLU6), pooling and a head: trunk outputs (N, H, W, 320) -> logits (N, 10).

    Where the trunk ends earlier, the `blocks` between it and features.18 come first, and inputs are what they take.
    With `block_bn_statistics` frozen, BN layers keep their ImageNet statistics and train scale and shift; features.18's
    are folded into its convolution at each step, which is exact algebra. `product_dtype` is the type of the large
    products, the blocks' and FC1's; all else is float32. State dict names are torchvision's (features.18.*) and head.*.
    """

    def __init__(
        self,
        blocks: dict[str, nn.Module],
        head: Head,
        block_bn_statistics: str = "frozen",
        product_dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.features = nn.ModuleDict(blocks)
        self.head = head
        self.block_bn_statistics = block_bn_statistics
        self.product_dtype = product_dtype

    @property
    def block(self) -> nn.Sequential:
        """features.18."""
        return self.features[str(LAST)]

    def train(self, mode: bool = True) -> "TransferModel":
        """Frozen BN statistics stay in eval mode whatever the model is asked."""
        super().train(mode)
        if self.block_bn_statistics == "frozen":
            self.features.eval()
        return self

    def activate_earlier_blocks(self, x: torch.Tensor) -> torch.Tensor:
        """The blocks before features.18, if any train: (N, H, W, C) -> (N, H', W', 320) in `product_dtype`."""
        x = x.float()  # twice as fast as from float16 directly
        earlier = [block for name, block in self.features.items() if name != str(LAST)]
        if not earlier:
            return x.to(self.product_dtype)
        x = x.permute(0, 3, 1, 2)
        if self.product_dtype in (torch.float16, torch.bfloat16):
            with torch.autocast(x.device.type, self.product_dtype):
                x = nn.Sequential(*earlier)(x)
        else:
            x = nn.Sequential(*earlier)(x.to(self.product_dtype))
        return x.permute(0, 2, 3, 1).to(self.product_dtype)

    def folded_block(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (1280, 320) and bias (1280,) of the convolution with its BN, statistics frozen, folded in."""
        convolution, bn = self.block[0], self.block[1]
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        return convolution.weight.flatten(1) * scale[:, None], bn.bias - bn.running_mean * scale

    def activate_block(self, x: torch.Tensor) -> torch.Tensor:
        """The blocks: (N, H, W, 320) -> (N, H, W, 1280), or pooled (N, 1280) where the head would pool first.

        Comes in `product_dtype`.
        """
        x = self.activate_earlier_blocks(x)
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


def make_last_block(backbone: StateDict) -> nn.Sequential:
    """torchvision's features.18 with its pretrained weights."""
    channels, in_channels = backbone[f"{LAST}.0.weight"].shape[:2]
    convolution = nn.Conv2d(in_channels, channels, 1, bias=False)
    block = nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU6())
    prefix = f"{LAST}."
    block.load_state_dict({name.removeprefix(prefix): v for name, v in backbone.items() if name.startswith(prefix)})
    return block


def make_blocks(backbone: StateDict, trainable_from: int, padding: str) -> dict[str, nn.Module]:
    """features.<trainable_from> to features.18 with their pretrained weights, by index."""
    blocks = {}
    if trainable_from < LAST:
        features = make_features(padding)
        features.load_state_dict(backbone)
        blocks = {str(k): features[k].to(memory_format=torch.channels_last) for k in range(trainable_from, LAST)}
    return blocks | {str(LAST): make_last_block(backbone)}


@dataclass(frozen=True)
class TransferRecipe:
    """How a head and the end of MobileNetV2 are made and trained; `asdict` of it is stored with every checkpoint."""

    epochs: int
    batch_size: int
    head_lr: float
    block_lr: float
    dropout: float
    placement: str
    block_bn_statistics: str
    frn_learned_eps: float
    precision: str
    trainable_from: int
    padding: str
    norm: str
    clip: float | None


def make_model(
    backbone: StateDict, recipe: TransferRecipe, seed: int, product_dtype: torch.dtype = torch.float32
) -> TransferModel:
    """A model with the pretrained blocks from `backbone`, the state dict of torchvision's `features`, in train mode."""
    blocks = make_blocks(backbone, recipe.trainable_from, recipe.padding)
    head = make_head(
        recipe.norm,
        blocks[str(LAST)][0].out_channels,
        seed=seed,
        dropout_rate=recipe.dropout,
        placement=recipe.placement,
        frn_learned_eps=recipe.frn_learned_eps,
    )
    return TransferModel(blocks, head, recipe.block_bn_statistics, product_dtype).train()


def read_recipe(checkpoint: dict) -> tuple[TransferRecipe, int]:
    """The recipe that a checkpoint carries as `params`, and the seed."""
    settings = dict(checkpoint["params"])
    seed = settings.pop("seed")
    return TransferRecipe(**settings), seed


def rebuild_model(checkpoint: dict, backbone: StateDict, product_dtype: torch.dtype = torch.float32) -> TransferModel:
    """The trained model of a checkpoint, in eval mode."""
    model = make_model(backbone, *read_recipe(checkpoint), product_dtype)
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()


@torch.no_grad()
def activate_in_batches(model: TransferModel, features: torch.Tensor) -> torch.Tensor:
    """What the head sees of stored features (N, H, W, C): (N, 1280), or the map where the head's norm acts on it."""
    device = next(model.parameters()).device
    return torch.cat([model.activate_block(x.to(device)) for x in features.split(BATCH_SIZE)])


def assert_block_statistics_frozen(model: TransferModel, backbone: StateDict) -> None:
    """Raise AssertionError unless the blocks' BN statistics are bit for bit those that were loaded."""
    for name, value in model.features.named_buffers():
        if not torch.equal(value.cpu(), backbone[name]):
            raise AssertionError(f"features.{name} changed although its statistics are frozen")
