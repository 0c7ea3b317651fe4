import numpy as np
import pytest
import torch

from stages.unfreezing.cka import compute_linear_cka

SHAPES = [(50, 7, 5), (20, 60, 90), (30, 4, 400)]  # images, features, features: both ways of computing it


def compute_by_gram_matrices(x, y):
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), equations 3 and 4, with the centering matrix written out."""
    h = np.eye(len(x)) - 1 / len(x)

    def hsic(a, b):
        return np.trace(a @ a.T @ h @ b @ b.T @ h)

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def compute_by_features(x, y):
    """|Y^T X|^2 / (|X^T X| |Y^T Y|) of centered features."""
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def draw(rng, images, p, q):
    """Two representations with a part in common."""
    common = rng.normal(size=(images, 3))
    x = common @ rng.normal(size=(3, p)) + rng.normal(size=(images, p)) + 2
    y = common @ rng.normal(size=(3, q)) + rng.normal(size=(images, q)) - 1
    return x, y


def cka(x, y):
    return compute_linear_cka(torch.from_numpy(x), torch.from_numpy(y))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_feature_form_the_gram_form_and_ours_agree(rng, shape):
    x, y = draw(rng, *shape)
    expected = compute_by_gram_matrices(x, y)
    assert compute_by_features(x, y) == pytest.approx(expected, rel=1e-10)
    assert cka(x, y) == pytest.approx(expected, rel=1e-10)
    assert cka(y, x) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_representations_have_similarity_one(rng, shape):
    x, _ = draw(rng, *shape)
    assert cka(x, x) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_rotations_shifts_and_one_common_scale_change_nothing(rng, shape):
    x, y = draw(rng, *shape)
    rotation, _ = np.linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))
    assert cka(x @ rotation, y) == pytest.approx(cka(x, y), rel=1e-9)
    assert cka(-3.7 * x + rng.normal(size=x.shape[1]), y) == pytest.approx(cka(x, y), rel=1e-9)


def test_scaling_single_features_does_change_it(rng):
    """Invariance to any invertible linear map would make it useless where there are more features than images."""
    x, y = draw(rng, 50, 7, 5)
    assert abs(cka(x * np.linspace(0.1, 10, 7), y) - cka(x, y)) > 0.01


def test_single_features_give_the_squared_correlation(rng):
    x, y = draw(rng, 40, 1, 1)
    assert cka(x, y) == pytest.approx(np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2, rel=1e-10)


def test_a_subspace_of_k_of_p_orthonormal_features_gives_sqrt_k_over_p(rng):
    """|Y^T X|^2 = k, |X^T X|^2 = p and |Y^T Y|^2 = k."""
    centered = rng.normal(size=(30, 9))
    x, _ = np.linalg.qr(centered - centered.mean(0))
    assert cka(x, x[:, :4]) == pytest.approx(np.sqrt(4 / 9), rel=1e-10)


def test_independent_gaussian_data_has_its_expected_small_similarity(rng):
    """With m = N - 1 the expectations are m p q, and m p (m + p + 1) for a Wishart matrix's squared norm."""
    images, p, q = 1001, 40, 60
    m = images - 1
    expected = np.sqrt(p * q / ((m + p + 1) * (m + q + 1)))
    found = np.mean([cka(rng.normal(size=(images, p)), rng.normal(size=(images, q))) for _ in range(10)])
    assert expected < 0.05 and found == pytest.approx(expected, rel=0.05)


def test_tiny_float32_activations_do_not_underflow(rng):
    x, y = (torch.from_numpy(value).float() for value in draw(rng, 40, 6, 8))
    assert compute_linear_cka(x * 2.0**-100, y) == compute_linear_cka(x, y)


def test_a_large_common_offset_costs_no_accuracy(rng):
    x, y = draw(rng, 40, 6, 8)
    x, y = np.round(x * 64) / 64, np.round(y * 64) / 64  # exact in float32 also with the offset
    offset = (torch.from_numpy(x) + 4096).float()
    assert compute_linear_cka(offset, torch.from_numpy(y).float()) == pytest.approx(cka(x, y), rel=1e-9)


def test_maps_are_flattened(rng):
    x = torch.from_numpy(rng.normal(size=(12, 3, 2, 2)))
    y = torch.from_numpy(rng.normal(size=(12, 5)))
    assert compute_linear_cka(x, y) == compute_linear_cka(x.flatten(1), y)


def test_what_has_no_similarity_is_refused():
    with pytest.raises(ValueError, match="same activations"):
        compute_linear_cka(torch.full((7, 2), 0.1), torch.randn(7, 3))
    with pytest.raises(ValueError, match="5 images are compared with 6"):
        compute_linear_cka(torch.randn(5, 2), torch.randn(6, 3))
