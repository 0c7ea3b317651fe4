import pytest
import torch

from stages.lib import device
from stages.lib.device import choose_dtype, compile_frozen, move_if_it_fits

CPU = torch.device("cpu")


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
