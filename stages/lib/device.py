"""Where and how precisely to compute."""

import sys

import torch

COMPILE_FROM = 10_000  # images; below, compiling costs more time than it saves


def choose_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; emulated, it would only be slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of the large products: `auto` is bfloat16 where the hardware has it, said once where it has not."""
    if precision != "auto":
        return getattr(torch, precision)
    if has_bfloat16(device):
        return torch.bfloat16
    print(f"this {device.type} has no bfloat16 products: float32 is used, about half as fast", file=sys.stderr)
    return torch.float32


def move_if_it_fits(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` in the memory of a CUDA device, or where it is if it would take more than half of what is free there."""
    if device.type == "cuda" and 2 * tensor.nbytes <= torch.cuda.mem_get_info(device)[0]:
        return tensor.to(device)
    return tensor


def compile_frozen(module: torch.nn.Module, example: torch.Tensor) -> torch.nn.Module:
    """`module` compiled with its weights folded in, or the module itself where no compiler works, said once."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    compiled = torch.compile(module)
    try:
        compiled(example)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        print(f"torch.compile does not work here, so extraction is about 3 times slower: {reason}", file=sys.stderr)
        return module
    return compiled
