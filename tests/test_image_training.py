import importlib
import math
import re
from dataclasses import fields

import pytest
import torch
from torch import nn

from stages.core.fingerprints import Reach
from stages.core.params import ParamsError, load_params
from stages.data.images import ImageData
from stages.training.from_images import OPTIMIZERS, SCHEDULES, Recipe, train_image_seeds
from tests.conftest import ROOT


def trace(schedule, steps=30, lr=0.5):
    """The learning rate of every step."""
    optimizer = OPTIMIZERS["sgd"]([nn.Parameter(torch.zeros(1))], lr, 0.0)
    scheduler, rates = SCHEDULES[schedule](optimizer, steps), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_the_schedules_are_what_their_names_say():
    assert set(trace("constant")) == {0.5}
    assert trace("cosine") == pytest.approx([0.25 * (1 + math.cos(math.pi * k / 30)) for k in range(30)])
    assert trace("step") == pytest.approx([0.5] * 10 + [0.05] * 10 + [0.005] * 10)
    rates = trace("one_cycle")
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.5) and 0 < top < 15 and rates[0] < 0.05 and rates[-1] < 1e-4
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("sgd", 0.1 * (1 + 0.9) * (2 + 0.01 * 3)),  # Nesterov's first step
        ("adam", 0.1),  # the sign of the gradient
        ("adamw", 0.1 + 0.1 * 0.01 * 3),  # and decay apart from it
    ],
)
def test_the_first_step_of_every_optimizer(name, step):
    parameter = nn.Parameter(torch.tensor([3.0]))
    optimizer = OPTIMIZERS[name]([parameter], 0.1, 0.01)
    parameter.grad = torch.tensor([2.0])
    optimizer.step()
    assert 3 - parameter.item() == pytest.approx(step, rel=1e-5)


class Brightness(nn.Module):
    """Logits that are linear in an image's mean."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images):
        return self.linear(images.float().mean((1, 2, 3))[:, None] / 255 - 0.5)


def test_a_recipe_trains_every_seed(tmp_path):
    labels = torch.arange(40) % 2
    images = (labels * 255)[:, None, None, None].expand(40, 32, 32, 3).to(torch.uint8)
    recipe = Recipe([3, 8], 5, 10, "sgd", 0.5, 0.0, "cosine", 100, None, "float32")
    data = ImageData(images, labels, images, labels, None)
    runs, timing = train_image_seeds("test", lambda seed: Brightness(), recipe, data, tmp_path, torch.device("cpu"))
    assert [run.seed for run in runs] == [3, 8] and timing["epochs_timed"] == 10
    for run in runs:
        assert run.epoch == 5 and run.history[-1]["val_accuracy"] == 1 and run.history[-1]["val_loss"] < 0.5
        assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0)  # the schedule ends with the last step


def test_training_from_images_asks_cudnn_for_repeatable_gradients(tmp_path, monkeypatch):
    """On an H100 two runs of one seed in float32 differed without it, and not with it."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    images, labels = torch.zeros(4, 32, 32, 3, dtype=torch.uint8), torch.arange(4) % 2
    recipe = Recipe([0], 1, 2, "sgd", 0.1, 0.0, "constant", 100, None, "float32")
    data = ImageData(images, labels, images, labels, None)
    train_image_seeds("test", lambda seed: Brightness(), recipe, data, tmp_path, torch.device("cpu"))
    assert torch.backends.cudnn.deterministic


@pytest.mark.parametrize(
    ("study", "name", "settings", "own"),
    [
        ("baseline", "25", {}, {"percent": 25}),
        ("small_cnn", "groupnorm", {"norm": "groupnorm"}, {}),
        (
            "small_cnn_sweep",
            "groupnorm-16-0.03",
            {"norm": "groupnorm"},
            {"batch_size": 16, "lr": 0.03, "epochs": 2, "percent": 25, "seeds": [0]},
        ),
        ("mobilenetv2", "width_half", {"width": 0.5, "strides": "reduce_32"}, {}),
    ],
)
def test_a_study_trains_a_variant_by_its_name_with_its_settings_as_they_are_written(
    monkeypatch, study, name, settings, own
):
    params, script = load_params(ROOT / "params.yaml"), importlib.import_module(f"stages.{study}.train")
    monkeypatch.setattr(script, "train_variant", lambda *passed: passed)
    monkeypatch.setattr(script, "take_device", lambda params: torch.device("cpu"))
    section = params.small_cnn if study == "small_cnn_sweep" else getattr(params, study)
    folder, variant, make_network, found, recipe, device = script.main(params, name)
    assert (folder, variant, repr(found), device) == (study, name, repr(settings), torch.device("cpu"))
    assert isinstance(make_network(seed=0, **found), nn.Module)
    assert recipe == Recipe(**{field.name: getattr(section, field.name) for field in fields(Recipe)} | own)
    with pytest.raises(ParamsError, match=f"'frn' is no variant of {study}; params.yaml lists .*{re.escape(name)}"):
        script.main(params, "frn")


@pytest.mark.parametrize("script", ["train", "report"])
@pytest.mark.parametrize("study", ["baseline", "small_cnn", "small_cnn_sweep", "mobilenetv2"])
def test_a_study_reaches_no_code_of_another(study, script):
    """So that one more, or a change in one, leaves the others' results as they are; the sweep trains the small CNN."""
    folders = {path.parent.name for path in ROOT.glob("stages/*/dvc.yaml")}
    reach = Reach(ROOT)
    reach.run(f"stages.{study}.{script}")
    trains = {"small_cnn"} if (study, script) == ("small_cnn_sweep", "train") else set()
    assert {name.split(".")[1] for name in reach.modules if "." in name} & folders == {study} | trains
