import pytest
import torch
import torch.nn.functional as F

from stages.core.params import NORMS
from stages.models.dropout import Dropout, seed_dropout
from stages.models.heads import make_head


def make(norm, placement="vector", dropout_rate=0.5, seed=0):
    return make_head(norm, 12, seed=seed, dropout_rate=dropout_rate, placement=placement)


@pytest.mark.parametrize("placement", ["vector", "spatial"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_head_is_the_sequence_that_the_study_describes(norm, placement):
    """Written out with torch's own functions; the map is (N, H, W, C)."""
    torch.manual_seed(0)
    head = make(norm, placement).eval()
    x = torch.randn(5, 3, 4, 12)
    hidden = F.linear(x.mean((1, 2)) if placement == "vector" else x, head.fc1.weight, head.fc1.bias)
    if norm == "none":
        expected = hidden
    elif norm == "batchnorm":
        expected = hidden / (1 + 1e-5) ** 0.5
    elif norm == "layernorm":
        expected = F.layer_norm(hidden, (256,))
    elif norm == "rmsnorm":
        expected = F.rms_norm(hidden, (256,), eps=1e-5)
    elif norm == "groupnorm":
        groups = hidden.unflatten(-1, (32, 8))  # eight units each, over the positions of a map if there is one
        dims = (-1,) if placement == "vector" else (1, 2, -1)
        variance, mean = torch.var_mean(groups, dims, correction=0, keepdim=True)
        expected = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(-2)
    elif placement == "vector":
        expected = hidden / (hidden**2 + 1e-4 + 1e-6).sqrt()
    else:
        expected = hidden / ((hidden**2).mean((1, 2), keepdim=True) + 1e-6).sqrt()
    expected = expected.relu()
    expected = expected if placement == "vector" else expected.mean((1, 2))
    torch.testing.assert_close(head(x), head.fc2(expected), rtol=1e-4, atol=1e-5)


def test_all_heads_start_from_the_same_fc_weights():
    heads = [make(norm, placement, seed=7) for norm in NORMS for placement in ("vector", "spatial")]
    for head in heads[1:]:
        for layer in ("fc1", "fc2"):
            for name in ("weight", "bias"):
                assert torch.equal(getattr(getattr(head, layer), name), getattr(getattr(heads[0], layer), name))
    assert not torch.equal(make("frn", seed=8).fc1.weight, heads[0].fc1.weight)


def test_fc_layers_are_initialised_as_torch_does():
    bound = 1 / 12**0.5
    weight = make("frn").fc1.weight
    assert -bound <= weight.min() < -0.98 * bound and 0.98 * bound < weight.max() <= bound


def test_batch_norm_uses_the_batch_in_training_and_running_statistics_in_eval():
    head = make("batchnorm", dropout_rate=0.0).train()
    x = torch.randn(64, 12) * 3 + 1
    hidden = head.normalize(head.fc1(x))
    torch.testing.assert_close(hidden.mean(0), torch.zeros(256), atol=1e-5, rtol=0)
    assert head.norm.running_mean.abs().sum() > 0


def test_dropout_is_seeded_scaled_and_off_in_eval():
    dropout = Dropout(0.5)
    x = torch.ones(100, 256)
    dropout.seed(3, x.device)
    first = dropout(x)
    dropout.seed(3, x.device)
    assert torch.equal(dropout(x), first)
    assert set(first.unique().tolist()) == {0.0, 2.0} and first.mean() == pytest.approx(1, abs=0.03)
    assert torch.equal(dropout.eval()(x), x)


def test_every_dropout_of_a_model_draws_its_own_numbers():
    model, x = torch.nn.Sequential(Dropout(0.5), torch.nn.ReLU(), Dropout(0.5)), torch.ones(100, 256)
    seed_dropout(model, 3, x.device)
    first, second = model[0](x), model[2](x)
    assert not torch.equal(first, second)
    seed_dropout(model, 3, x.device)
    assert torch.equal(model[0](x), first) and torch.equal(model[2](x), second)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=", ".join(NORMS)):
        make_head("instancenorm", 12, seed=0)
    with pytest.raises(ValueError, match="vector, spatial"):
        make("frn", placement="pixel")
