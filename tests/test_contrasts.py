import numpy as np
import pytest

from stages.measure.contrasts import compare_over_images, compare_over_seeds, list_contrasts
from stages.training.predictions import Predictions

NORMS = ["batchnorm", "layernorm", "frn"]


def make_predictions(correct):
    """Predictions that are right exactly where `correct`, bool (seeds, N), says; all labels are 0."""
    probabilities = np.zeros((*correct.shape, 10), dtype=np.float32)
    probabilities[..., 0], probabilities[..., 1] = correct, ~correct
    return Predictions(np.arange(len(correct)), np.zeros(correct.shape[1], dtype=int), probabilities)


@pytest.fixture
def predictions(rng):
    """Six seeds; FRN is right in 60% of the images and the others in 80%, with no effect of clipping."""
    rates = {"batchnorm": 0.8, "layernorm": 0.8, "frn": 0.6}
    return {
        f"{norm}-{mode}": make_predictions(rng.random((6, 1000)) < rates[norm])
        for norm in NORMS
        for mode in ("noclip", "clip")
    }


def test_every_norm_has_a_clip_contrast_and_every_pair_two():
    contrasts = list(list_contrasts(NORMS))
    assert [family for family, *_ in contrasts] == ["clipping"] * 3 + ["norms"] * 6
    assert contrasts[0][2:] == ("batchnorm-clip", "batchnorm-noclip")
    assert contrasts[-1][1:] == ("LayerNorm - FRN, clipped", "layernorm-clip", "frn-clip")
    assert [family for family, *_ in list_contrasts(["frn"])] == ["clipping"]


def test_effects_are_differences_of_accuracy_in_points(predictions):
    table = compare_over_seeds(predictions, NORMS)
    for row in table.itertuples():
        expected = 100 * (predictions[row.first].correct.mean() - predictions[row.second].correct.mean())
        assert row.mean == pytest.approx(expected)
        assert row.low <= row.mean <= row.high and row.image_low < row.mean < row.image_high


def test_only_the_real_effects_are_found(predictions):
    """Every pair with FRN differs in the same direction in all six seeds: p = 2 / 2^6, four of them at the minimum."""
    seeds, images = compare_over_seeds(predictions, NORMS), compare_over_images(predictions, NORMS)
    real = seeds["contrast"].str.contains("- FRN,")
    assert (seeds.loc[real, "p"] == 2 / 2**6).all() and real.sum() == 4
    np.testing.assert_allclose(seeds.loc[real, "p_adjusted"], 6 * 2 / 2**6)
    assert (seeds.loc[~real, "p"] > 0.05).all()
    real = images["contrast"].str.contains("- FRN,")
    assert (images.loc[real, "p_adjusted"] < 1e-6).all() and real.sum() == 24
    assert (images.loc[~real, "p_adjusted"] > 0.05).all()


def test_mcnemar_counts_the_images_that_one_model_alone_gets_right(predictions):
    row = compare_over_images(predictions, NORMS).iloc[1]  # BatchNorm, clipping, second seed
    clipped, plain = (predictions[f"batchnorm-{mode}"].correct[1] for mode in ("clip", "noclip"))
    assert row["seed"] == 1
    assert row["only_first"] - row["only_second"] == clipped.sum() - plain.sum()
    assert row["only_first"] + row["only_second"] == (clipped != plain).sum()


def test_mcnemars_p_values_are_corrected_over_all_tests_of_a_family(predictions):
    table = compare_over_images(predictions, NORMS)
    for family, tests in (("clipping", 3 * 6), ("norms", 6 * 6)):
        own = table[table["family"] == family]
        assert len(own) == tests
        assert own["p_adjusted"].min() == pytest.approx(min(1, tests * own["p"].min()))
