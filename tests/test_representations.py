import numpy as np
import pytest
import torch

from stages.models.trunk import Trunk, make_features
from stages.unfreezing.layer_outputs import (
    compare_layers,
    embed,
    pool,
    record_outputs,
    replace_blocks,
    share_of_like_neighbors,
)
from stages.unfreezing.representation_figures import draw_embedding, draw_maps, draw_similarity


@pytest.fixture
def images(rng):
    return torch.from_numpy(rng.integers(0, 256, (130, 32, 32, 3), dtype=np.uint8))  # more than a batch


def make_network(state):
    return Trunk(state, 32, [0.5] * 3, [0.5] * 3, "symmetric", 19)


def test_recorded_outputs_are_those_of_torchvisions_layers(backbone_state, images):
    features = make_features("symmetric").eval()
    features.load_state_dict(backbone_state)
    x = (images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        second = features[:3](x)
        expanded = features[14].conv[0](features[:14](x))
    found = record_outputs(make_network(backbone_state), ["2", "14.conv.0"], images)
    torch.testing.assert_close(found["2"], second, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["14.conv.0"], expanded, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(pool(found["2"]), second.numpy().mean((2, 3)), rtol=1e-3, atol=1e-4)


def test_trained_blocks_take_the_place_of_the_pretrained_ones_and_heads_are_left_out(backbone_state, images):
    weight = torch.randn_like(backbone_state["18.0.weight"])
    trained = {"features.18.0.weight": weight, "head.fc1.weight": torch.ones(1)}
    replaced = replace_blocks(backbone_state, trained)
    assert replaced.keys() == backbone_state.keys()
    assert [name for name in replaced if replaced[name] is not backbone_state[name]] == ["18.0.weight"]
    before, after = (record_outputs(make_network(s), ["17", "18"], images) for s in (backbone_state, replaced))
    similarity = compare_layers(before, after)
    assert similarity["17"] == pytest.approx(1, abs=1e-12) and similarity["18"] < 0.99
    with pytest.raises(ValueError, match="the backbone has no 19.weight"):
        replace_blocks(backbone_state, {"features.19.weight": torch.ones(1)})


def test_the_share_of_like_neighbors_in_two_clusters(rng):
    """Eleven points of one class far from eleven of another; then one of each wears the other's label."""
    points = rng.normal(size=(22, 3)) + 100 * np.repeat([0, 1], 11)[:, None]
    labels = np.repeat([0, 1], 11)
    assert share_of_like_neighbors(points, labels) == 1
    labels[[0, 11]] = [1, 0]  # each wrong one has no like neighbor, each of the ten others in its cluster loses one
    assert share_of_like_neighbors(points, labels) == pytest.approx(20 * 9 / 220)


def test_an_embedding_keeps_clusters_apart_and_is_reproducible(rng):
    features = (rng.normal(size=(100, 20)) + 30 * np.repeat([0, 1], 50)[:, None]).astype(np.float32)
    labels = np.repeat([0, 1], 50)
    points = embed(features, seed=0)
    assert points.shape == (100, 2) and share_of_like_neighbors(points, labels) == 1
    np.testing.assert_array_equal(points, embed(features, seed=0))


def test_the_figures_say_what_is_frozen(rng):
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    before = {"low": torch.rand(2, 5, 4, 4), "high": torch.rand(2, 5, 2, 2)}
    figure = draw_maps(images, before, before | {"high": torch.rand(2, 5, 2, 2)}, "caption")
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts.count("frozen:\nas above") == 2 and texts.count("after") == 2
    drawn = sum(len(axes.images) for axes in figure.axes)
    assert drawn == 2 * (1 + 3 + 6)
    points, labels = rng.normal(size=(20, 2)), np.arange(20) % 10
    panels = draw_embedding({"before": points, "after": points + 1}, labels, "caption").axes
    assert [axes.get_title() for axes in panels] == ["before", "after"] and len(panels[0].lines) == 10
    line = draw_similarity({0: 1.0, 1: 0.9}, "caption").axes[0].lines[0]
    assert line.get_ydata().tolist() == [1.0, 0.9]
