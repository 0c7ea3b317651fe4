from dataclasses import replace

import pytest

from stages.core.params import Params, load_params
from stages.reporting.image_labels import describe_recipe, name_variant
from stages.reporting.phrases import count
from stages.training.from_images import OPTIMIZERS, SCHEDULES
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def test_one_is_singular():
    assert (count(1, "seed"), count(2, "seed")) == ("1 seed", "2 seeds")


def test_variants_have_names_of_their_own_without_underscores(params):
    names = [name_variant(name) for name in params.mobilenetv2.variants]
    assert len(set(names)) == len(names) and not any("_" in name for name in names)
    assert [name_variant(name) for name in params.small_cnn.variants] == ["BatchNorm", "GroupNorm", "LayerNorm"]
    assert [name_variant(f"width_{which}") for which in ("half", "double")] == ["width 0.5", "width 2"]


def test_a_name_of_ones_own_is_told_without_a_table():
    assert (name_variant("expansion_4"), name_variant("no-se")) == ("expansion 4", "no-se")


def test_every_optimizer_and_schedule_can_be_told(params):
    for optimizer in OPTIMIZERS:
        for schedule in SCHEDULES:
            text = describe_recipe(replace(params.small_cnn, optimizer=optimizer, schedule=schedule, lr=0.25))
            assert "0.25" in text and "_" not in text


def test_a_share_of_the_images_is_told_and_all_of_them_are_not(params):
    recipe = replace(params.small_cnn, epochs=1, seeds=[0, 1], batch_size=32, optimizer="adam", schedule="one_cycle")
    assert describe_recipe(replace(recipe, lr=0.01, percent=100)) == (
        "1 epoch of Adam under OneCycleLR with a peak learning rate of 0.01, batches of 32, 2 seeds"
    )
    assert ", 10% of the training images, 2 seeds" in describe_recipe(replace(recipe, percent=10))
