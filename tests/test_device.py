import re
import warnings

import joblib
import pytest
import torch

from stages.core import device
from stages.core.device import (
    ENVIRONMENT,
    choose_device,
    choose_dtype,
    compile_frozen,
    describe_device,
    find_environment,
    move_if_it_fits,
    take_device,
)
from stages.core.files import StageError, write_json
from stages.core.params import load_params
from tests.conftest import ROOT

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """What torch says of GPUs; nothing is remembered of the real machine."""
    device.find_obstacle.cache_clear()
    answers = {"cuda": lambda: False, "mps": lambda: False}
    monkeypatch.setattr(device, "GPUS", answers)
    yield answers
    device.find_obstacle.cache_clear()


@pytest.mark.parametrize(
    ("present", "requested", "chosen"),
    [
        ([], "auto", "cpu"),
        (["cuda"], "auto", "cuda"),
        (["mps"], "auto", "mps"),
        (["cuda", "mps"], "auto", "cuda"),
        (["cuda", "mps"], "mps", "mps"),
        (["cuda"], "cpu", "cpu"),
    ],
)
def test_the_device_is_the_one_asked_for_or_the_first_gpu(gpus, present, requested, chosen):
    gpus.update({name: lambda: True for name in present})
    assert choose_device(requested).type == chosen


def test_a_device_that_is_asked_for_and_missing_is_refused(gpus):
    for name in ("cuda", "mps"):
        with pytest.raises(StageError, match=f"device is {name} in params.yaml, .* no such device; .* auto or cpu"):
            choose_device(name)


def test_a_driver_that_is_too_old_is_named(gpus):
    def warn():
        warnings.warn("The NVIDIA driver on your system is too old\n(found version 11040).", stacklevel=1)
        return False

    gpus["cuda"] = warn
    named = "The NVIDIA driver on your system is too old (found version 11040)."
    assert named in describe_device(choose_device("auto"))
    with pytest.raises(StageError, match=re.escape(named)):
        choose_device("cuda")
    assert "threads" in describe_device(CPU)


def test_a_stage_refuses_to_compute_beside_what_is_recorded(gpus, tmp_path, monkeypatch):
    """Such as on another device: DVC would file its results under the recorded one, and serve them later."""
    params = load_params(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match="run `dvc repro environment`"):
        take_device(params)
    found = find_environment(params, CPU)
    write_json(ENVIRONMENT, found | {"weights_sha256": None})
    assert take_device(params) == CPU
    for other in ({"torch": "1.0"}, {"device": "cuda"}, {"precision": found["precision"] | {"train": "float8"}}):
        write_json(ENVIRONMENT, found | other)
        with pytest.raises(StageError, match="does not say what is found here"):
            take_device(params)


def test_threads_follow_the_share_of_the_processor_that_is_left_to_the_process(monkeypatch):
    before = torch.get_num_threads()
    try:
        for quota, threads, expected in [(2, 64, 2), (2, 1, 1), (8, 4, 4)]:
            torch.set_num_threads(threads)
            monkeypatch.setattr(joblib, "cpu_count", lambda quota=quota: quota)
            choose_device("cpu")
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_float32_on_cuda_is_not_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    choose_device("cpu")
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_auto_is_bfloat16_where_the_processor_has_it(monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert choose_dtype("auto", CPU) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert choose_dtype("auto", CPU) == torch.float32
    assert "no bfloat16" in capsys.readouterr().err
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16


def test_without_a_compiler_extraction_goes_on_and_says_so(monkeypatch, capsys):
    def broken(module):
        def call(x):
            raise torch._dynamo.exc.TorchDynamoException("no working C++ compiler")

        return call

    monkeypatch.setattr(device.torch, "compile", broken)
    module = torch.nn.Identity()
    assert compile_frozen(module, torch.zeros(1)) is module
    assert "slower: no working C++ compiler" in capsys.readouterr().err


@pytest.mark.parametrize(("free", "moved"), [(1000, True), (10, False)])
def test_features_are_kept_on_a_device_with_room_for_them(monkeypatch, free, moved):
    calls = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, target: calls.append(target) or self)
    move_if_it_fits(torch.zeros(100, dtype=torch.float16), torch.device("cuda"))
    assert bool(calls) == moved
