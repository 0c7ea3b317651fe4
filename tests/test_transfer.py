import pytest
import torch
import torch.nn.functional as F

from stages.models.transfer_model import PooledReLU6Linear, assert_block_statistics_frozen, make_last_block
from stages.models.trunk import make_features
from tests.synthetic import make_model


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(6, 2, 3, 320).half()


def plain_forward(model, x):
    """features.18 as torchvision has it, in eval mode, then the head on its channels-last output."""
    from torchvision.models import mobilenet_v2

    block = mobilenet_v2().features[18].double().eval()
    block.load_state_dict({name: value for name, value in model.block.state_dict().items()})
    return model.head(block(x.double().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)), block


@pytest.mark.parametrize("placement", ["vector", "spatial"])
@pytest.mark.parametrize("norm", ["batchnorm", "layernorm", "frn"])
def test_forward_and_gradients_equal_the_plain_network(backbone_state, x, norm, placement):
    def make():
        settings = {"placement": placement, "dropout": 0.0, "product_dtype": torch.float64}
        return make_model(backbone_state, norm, seed=0, **settings).double().train()

    model = make()
    y = torch.arange(6)
    logits = model(x)
    F.cross_entropy(logits, y).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    reference = make()
    expected, block = plain_forward(reference, x)
    F.cross_entropy(expected, y).backward()
    torch.testing.assert_close(logits, expected)
    gradients = {f"features.18.{name}": p.grad for name, p in block.named_parameters()}
    gradients |= {f"head.{name}": p.grad for name, p in reference.head.named_parameters()}
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("padding", "start"), [("symmetric", 16), ("tensorflow_same", 14)])
def test_more_blocks_may_train(backbone_state, padding, start):
    """Forward pass and gradients of a trunk that ends earlier, against torchvision's blocks in sequence."""
    torch.manual_seed(1)
    x = torch.randn(4, 4, 4, 96 if start == 14 else 160).half()
    settings = {"padding": padding, "trainable_from": start, "dropout": 0.0, "product_dtype": torch.float64}
    model = make_model(backbone_state, "layernorm", seed=0, **settings).double().train()
    F.cross_entropy(model(x), torch.arange(4)).backward()

    features = make_features(padding)
    features.load_state_dict(backbone_state)
    features.double().eval()
    head = make_model(backbone_state, "layernorm", seed=0, dropout=0.0).head.double()
    expected = head(features[start:](x.double().permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    F.cross_entropy(expected, torch.arange(4)).backward()
    torch.testing.assert_close(model(x), expected)
    found = {name: p.grad for name, p in model.features.named_parameters()}
    reference = {name: p.grad for name, p in features.named_parameters() if int(name.split(".")[0]) >= start}
    assert found.keys() == reference.keys()
    for name, gradient in reference.items():
        torch.testing.assert_close(found[name], gradient, msg=lambda m, n=name: f"{n}: {m}")
    assert_block_statistics_frozen(model, {name: value.double() for name, value in backbone_state.items()})


def test_the_last_block_is_torchvisions(backbone_state):
    features = make_features("symmetric")
    features.load_state_dict(backbone_state)
    x, block = torch.randn(2, 320, 3, 3), make_last_block(backbone_state).eval()
    assert torch.equal(block(x), features[18].eval()(x))
    assert block.state_dict().keys() == features[18].state_dict().keys()


def test_the_pooled_block_is_autograds_in_double_precision():
    """With entries below 0, between 0 and 6, and beyond 6."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 4, 5).double(), 4 * torch.randn(6, 5).double(), torch.randn(6).double() + 1
    weighting = torch.randn(3, 6).double()
    results = []
    for function in (PooledReLU6Linear.apply, lambda x, w, b: F.relu6(F.linear(x, w, b)).mean(1)):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
        output = function(*leaves)
        results.append((output, *torch.autograd.grad((output * weighting).sum(), leaves)))
    assert (F.linear(x, weight, bias) > 6).any() and (F.linear(x, weight, bias) < 0).any()
    torch.testing.assert_close(*results)


def test_a_second_backward_through_the_overwritten_map_is_refused():
    w = torch.ones(6, 5, requires_grad=True)
    output = PooledReLU6Linear.apply(torch.ones(3, 4, 5), w, torch.zeros(6)).sum()
    output.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


def test_bfloat16_products_stay_near_float32(backbone_state, x):
    exact = make_model(backbone_state, "layernorm", seed=0).eval()
    rough = make_model(backbone_state, "layernorm", seed=0, product_dtype=torch.bfloat16).eval()
    torch.testing.assert_close(rough.activate_block(x).float(), exact.activate_block(x), rtol=0.03, atol=0.02)


@pytest.mark.parametrize(("statistics", "changes"), [("frozen", False), ("batch", True)])
def test_block_statistics_move_only_when_asked(backbone_state, x, statistics, changes):
    model = make_model(backbone_state, "batchnorm", seed=0, block_bn_statistics=statistics).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.block[1].weight, backbone_state["18.1.weight"])
    if changes:
        with pytest.raises(AssertionError, match="features.18.1.running_mean changed"):
            assert_block_statistics_frozen(model, backbone_state)
    else:
        assert_block_statistics_frozen(model, backbone_state)


def test_batch_statistics_are_torchs_batch_norm(backbone_state, x):
    model = make_model(backbone_state, "layernorm", seed=0, block_bn_statistics="batch").train()
    z = F.linear(x.float(), model.block[0].weight.flatten(1)).permute(0, 3, 1, 2)
    expected = F.relu6(F.batch_norm(z, None, None, model.block[1].weight, model.block[1].bias, training=True))
    torch.testing.assert_close(model.activate_block(x), expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


def test_state_dict_names_are_torchvisions(backbone_state):
    names = set(make_model(backbone_state, "frn", seed=0).state_dict())
    block = {f"features.{name}" for name in backbone_state if name.startswith("18.")}
    head = {"head.fc1.weight", "head.fc1.bias", "head.norm.weight", "head.norm.bias", "head.norm.eps_l"}
    assert names == block | head | {"head.fc2.weight", "head.fc2.bias"}
