"""Where and how precisely to compute."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

from stages.core.files import StageError, read_json
from stages.core.params import Params

COMPILE_FROM = 10_000  # images; below, compiling costs more time than it saves
GPUS = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
ABSENT = "torch finds no such device"
ENVIRONMENT = "metrics/environment.json"
COMPUTING = ("features", "train", "baseline", "small_cnn", "mobilenetv2")  # sections of params.yaml with a precision


def limit_threads() -> None:
    """Use no more threads than the processor's share that a container's quota or the affinity leaves to this process.

    torch counts the host's cores; fewer threads by OMP_NUM_THREADS are left as they are.
    """
    from joblib import cpu_count  # here, because only stages that compute need it

    torch.set_num_threads(min(torch.get_num_threads(), cpu_count()))


def forbid_tf32() -> None:
    """float32 means float32: by default cuDNN's convolutions round their inputs to ten bits of mantissa."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@cache
def find_obstacle(gpu: str) -> str | None:
    """What keeps torch from computing on cuda or mps, such as a driver that is too old; None if nothing does."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if GPUS[gpu]():
            return None
    return "; ".join(" ".join(str(warning.message).split()) for warning in caught) or ABSENT


def choose_device(requested: str) -> torch.device:
    """The device that the parameter `device` asks for: auto is the first of cuda and mps that is there, or the CPU.

    Raises StageError where a device that is asked for by name cannot be used.
    """
    limit_threads()
    forbid_tf32()
    if requested == "auto":
        return torch.device(next((gpu for gpu in GPUS if find_obstacle(gpu) is None), "cpu"))
    obstacle = None if requested == "cpu" else find_obstacle(requested)
    if obstacle:
        raise StageError(
            f"device is {requested} in params.yaml, which cannot be used: {obstacle}; "
            "mend that, or set device to auto or cpu"
        )
    return torch.device(requested)


def find_environment(params: Params, device: torch.device) -> dict:
    """What decides results beside parameters, files and code: torch's release, the device, each section's precision."""
    precision = {name: resolve_precision(getattr(params, name).precision, device) for name in COMPUTING}
    return {"torch": torch.__version__.split("+")[0], "device": device.type, "precision": precision}


def take_device(params: Params) -> torch.device:
    """The device that the parameters ask for, where the stage `environment` has recorded what is found here.

    Raises StageError where it has not, since DVC would file the results under what is recorded.
    """
    device = choose_device(params.device)
    found = find_environment(params, device)
    recorded = read_json(ENVIRONMENT) if Path(ENVIRONMENT).exists() else {}
    if any(recorded.get(name) != value for name, value in found.items()):
        raise StageError(
            f"{ENVIRONMENT} does not say what is found here ({found}); run `dvc repro environment`, and then this again"
        )
    return device


def make_pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """Workers that compute side by side in this process, each on so many threads."""
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,))


def make_convolutions_repeatable() -> None:
    """Have cuDNN choose among algorithms that add up in a fixed order: by default some gradients of weights do not."""
    torch.backends.cudnn.deterministic = True


def describe_device(device: torch.device) -> str:
    """What a user should know of a device: its name or threads, and why a GPU that seems to be there is not used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple's GPU"
    broken = [f"{gpu}: {obstacle}" for gpu in GPUS if (obstacle := find_obstacle(gpu)) not in (None, ABSENT)]
    return ", ".join([f"{torch.get_num_threads()} threads", *broken])


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; emulated, it would only be slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return False  # not measured on any
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def resolve_precision(precision: str, device: torch.device) -> str:
    """The name of the type of the large products: `auto` is bfloat16 where the hardware has it, or else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of the large products; says so where `auto` is not bfloat16."""
    found = resolve_precision(precision, device)
    if precision == "auto" and found == "float32":
        print(f"this {device.type} has no bfloat16 products: float32 is used, about half as fast", file=sys.stderr)
    return getattr(torch, found)


def move_if_it_fits(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` in the memory of a CUDA device, or where it is if it would take more than half of what is free there."""
    if device.type == "cuda" and 2 * tensor.nbytes <= torch.cuda.mem_get_info(device)[0]:
        return tensor.to(device)
    return tensor


def compile_frozen(module: torch.nn.Module, example: torch.Tensor) -> torch.nn.Module:
    """`module` compiled with its weights folded in, or the module itself where no compiler works, said once."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    inductor.compile_threads = torch.get_num_threads()
    compiled = torch.compile(module)
    try:
        compiled(example)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        print(f"torch.compile does not work here, so extraction is about 3 times slower: {reason}", file=sys.stderr)
        return module
    return compiled
