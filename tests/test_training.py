import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.core.progress import Progress, Stopped
from stages.data.feature_cache import TrainingData
from stages.training import loop as training
from stages.training.evaluation import evaluate, predict_logits
from stages.training.from_features import make_optimizer
from stages.training.gradient_tracking import GradientTracker
from stages.training.loop import DivergedError, Run, advance, derive_seed, side_by_side, train_epoch, train_runs
from tests.synthetic import make_model

CPU = torch.device("cpu")


@pytest.fixture
def data():
    torch.manual_seed(0)
    labels = torch.arange(100) % 10
    features = torch.randn(100, 2, 2, 320) + 0.3 * F.one_hot(labels, 320)[:, None, None]
    features = features.half()
    return TrainingData([features], labels, features, labels)


def make_run(backbone_state, seed=0, norm="layernorm"):
    model = make_model(backbone_state, norm, seed=seed)
    return Run(seed, model, make_optimizer(model, head_lr=1e-2, block_lr=1e-4))


def advance_run(run, data, threshold=None, on_step=lambda: None):
    advance(run, data, batch_size=16, threshold=threshold, on_step=on_step)


def test_an_epoch_is_adam_on_shuffled_batches(backbone_state, data):
    """Against a loop of its own: torch's Adam, explicit order and dropout mask, clipping by torch."""
    features, labels = data.views[0], data.labels
    run = make_run(backbone_state)
    with GradientTracker(run.model) as tracker:
        row = train_epoch(run, features, labels, 16, 0.5, tracker, lambda: None)

    model = make_model(backbone_state, "layernorm", seed=0).train()
    groups = [{"params": model.block.parameters(), "lr": 1e-4}, {"params": model.head.parameters(), "lr": 1e-2}]
    optimizer = torch.optim.Adam(groups)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(derive_seed(0, 0, 0)))
    dropout = torch.Generator().manual_seed(derive_seed(0, 0, 1))
    losses = []
    for k in range(6):  # the last four images make no whole batch
        batch = order[16 * k : 16 * (k + 1)]
        hidden = model.head.activate(model.head.fc1(model.activate_block(features[batch])))
        mask = (torch.rand(hidden.shape, generator=dropout) >= 0.5) / 0.5
        loss = F.cross_entropy(model.head.fc2(hidden * mask), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    assert row["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    for (name, found), expected in zip(run.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_evaluation_weights_every_sample_alike(backbone_state, data):
    tensors = (data.val_inputs, data.val_labels)
    features, labels = (torch.cat([tensor, tensor[:33]]) for tensor in tensors)  # no multiple of the batch size
    model = make_model(backbone_state, "frn", seed=0).train()
    found = evaluate(model, features, labels)
    assert model.training
    logits = model.eval()(features)
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found["accuracy"] == (logits.argmax(1) == labels).double().mean().item()
    torch.testing.assert_close(predict_logits([model], features)[0], logits, rtol=1e-4, atol=1e-5)


def test_inputs_are_read_once_for_several_models(backbone_state, data):
    class Counted:
        def __init__(self, tensor):
            self.tensor, self.reads = tensor, 0

        def split(self, size):
            self.reads += 1
            return self.tensor.split(size)

    models, inputs = [make_model(backbone_state, norm, seed=0) for norm in ("frn", "layernorm")], Counted(data.views[0])
    found = predict_logits(models, inputs)
    assert inputs.reads == 1
    for model, logits in zip(models, found, strict=True):
        assert model.training and torch.equal(logits, model.eval()(inputs.tensor))


def test_epochs_take_the_views_in_turn(backbone_state, data):
    first, second = data.views[0], data.views[0].flip(2) + 0.1
    by_turns, by_hand = make_run(backbone_state), make_run(backbone_state)
    for view in (first, second, first):
        advance_run(by_turns, replace(data, views=[first, second]))
        advance_run(by_hand, replace(data, views=[view]))
    assert by_turns.history == by_hand.history
    assert by_turns.history[1]["train_loss"] != make_history(backbone_state, data, epochs=2)[1]["train_loss"]


def make_history(backbone_state, data, epochs):
    run = make_run(backbone_state)
    for _ in range(epochs):
        advance_run(run, data)
    return run.history


def test_the_scheduler_steps_after_every_batch(backbone_state, data):
    run = schedule(make_run(backbone_state))
    advance_run(run, data)
    assert [group["lr"] for group in run.optimizer.param_groups] == pytest.approx([1e-4 * 0.9**6, 1e-2 * 0.9**6])


def schedule(run):
    run.scheduler = torch.optim.lr_scheduler.ExponentialLR(run.optimizer, 0.9)
    return run


@pytest.mark.parametrize("prepare", [lambda run: run, schedule], ids=["constant", "scheduled"])
def test_resuming_is_bit_identical(backbone_state, data, tmp_path, prepare):
    straight = prepare(make_run(backbone_state))
    for _ in range(3):
        advance_run(straight, data, threshold=1.0)

    first = prepare(make_run(backbone_state))
    advance_run(first, data, threshold=1.0)
    first.save(tmp_path)
    second = prepare(make_run(backbone_state))
    second.restore(tmp_path)
    assert second.epoch == 1
    for _ in range(2):
        advance_run(second, data, threshold=1.0)
    assert second.history == straight.history and second.gradients == straight.gradients
    assert second.best["epoch"] == straight.best["epoch"]
    for name, value in straight.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value), name


def test_side_by_side_gives_what_each_seed_gives_alone(backbone_state, data):
    def train(seeds, threads):
        runs = [make_run(backbone_state, seed, "batchnorm") for seed in seeds]
        progress = Progress("test", 100)
        torch.set_num_threads(threads)
        side_by_side(runs, 3, lambda run: advance_run(run, data, on_step=progress.step), CPU, progress)
        return {run.seed: run for run in runs}

    before = torch.get_num_threads()
    try:
        together = train([0, 1, 2], threads=2)  # two workers of one thread each
        for seed in (0, 1, 2):
            alone = train([seed], threads=1)[seed]
            assert alone.history == together[seed].history
            for name, value in alone.model.state_dict().items():
                assert torch.equal(together[seed].model.state_dict()[name], value), name
    finally:
        torch.set_num_threads(before)
    assert together[0].history != together[1].history


def test_one_failing_run_stops_the_others(backbone_state, data):
    runs = [make_run(backbone_state, seed) for seed in (0, 1)]
    progress, other_started = Progress("test", 100), threading.Event()

    def next_epoch(run):
        if run.seed == 0:
            other_started.wait(30)
            raise DivergedError("boom")
        other_started.set()
        while True:  # only Stopped ends this
            progress.step()

    if torch.get_num_threads() > 1:
        with pytest.raises((DivergedError, Stopped)):
            side_by_side(runs, 3, next_epoch, CPU, progress)
    assert progress.stopping.is_set() or torch.get_num_threads() == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_seed_epoch_and_step(backbone_state, data, value):
    run = make_run(backbone_state, seed=4)
    advance_run(run, data)
    with torch.no_grad():
        run.model.head.fc2.bias[0] = value
    with pytest.raises(DivergedError, match=r"seed 4, epoch 2, step 1: the loss is (nan|inf)"):
        advance_run(run, data)
    assert run.epoch == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_at_the_very_last_step_is_noticed(backbone_state, data, value):
    """Its loss is finite, and no later step would show what it left in the weights."""
    run = make_run(backbone_state, seed=4)
    steps = iter(range(6))
    run.model.head.fc2.bias.register_hook(lambda grad: grad * value if next(steps) == 5 else grad)
    with pytest.raises(DivergedError, match=r"seed 4, epoch 1, step 6: the gradient norm is (nan|inf)"):
        advance_run(run, data)
    assert run.epoch == 0


def test_a_weight_that_is_not_finite_after_the_last_step_is_noticed(backbone_state, data):
    run = make_run(backbone_state, seed=4)
    step, steps = run.optimizer.step, iter(range(6))

    def break_the_last(*args):
        step(*args)
        if next(steps) == 5:
            with torch.no_grad():
                run.model.head.fc1.weight[0, 0] = float("inf")

    run.optimizer.step = break_the_last
    with pytest.raises(DivergedError, match="seed 4, epoch 1, after the last step: head.fc1.weight is not finite"):
        advance_run(run, data)


def train_to_the_end(backbone_state, data, seeds, states):
    runs = [make_run(backbone_state, seed) for seed in seeds]
    train_runs("test", runs, data, 3, 16, 1.0, states)
    return {run.seed: run for run in runs}


def test_one_more_seed_trains_one_seed_to_the_bits_of_a_run_from_nothing(backbone_state, data, tmp_path, monkeypatch):
    train_to_the_end(backbone_state, data, [0, 1], tmp_path / "kept")
    trained = []
    monkeypatch.setattr(training, "advance", lambda run, *args: trained.append(run.seed) or advance(run, *args))
    found = train_to_the_end(backbone_state, data, [0, 1, 2], tmp_path / "kept")
    assert trained == [2, 2, 2]
    expected = train_to_the_end(backbone_state, data, [0, 1, 2], tmp_path / "new")
    for seed, run in expected.items():
        assert found[seed].history == run.history and found[seed].gradients == run.gradients
        pairs = [(run.model.state_dict(), found[seed].model.state_dict())]
        pairs.append((run.best["state_dict"], found[seed].best["state_dict"]))
        for mine, theirs in pairs:
            assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_a_damaged_state_is_trained_anew(backbone_state, data, tmp_path, capsys):
    expected = train_to_the_end(backbone_state, data, [0, 1], tmp_path)
    (path,) = tmp_path.rglob("seed1.pt")
    path.write_bytes(path.read_bytes()[:1000])
    found = train_to_the_end(backbone_state, data, [0, 1], tmp_path)
    assert f"{path} is damaged: seed 1 is trained anew" in capsys.readouterr().err
    assert found[1].history == expected[1].history


def test_what_was_not_trained_has_no_time(backbone_state, data, tmp_path):
    runs = [make_run(backbone_state)]
    timing = train_runs("test", runs, data, 1, 16, None, tmp_path)
    assert timing["seconds_per_epoch"] > 0 and timing["epochs_timed"] == 1
    timing = train_runs("test", [make_run(backbone_state)], data, 1, 16, None, tmp_path)
    assert (timing["seconds_per_epoch"], timing["training_seconds"], timing["epochs_timed"]) == (None, None, 0)


def test_a_model_keeps_frozen_statistics_from_the_start(backbone_state):
    """Not only once it was asked to train: what follows a training must not depend on whether it was restored."""
    fresh = make_model(backbone_state, "frn", seed=0, trainable_from=16)
    assert fresh.training and not any(module.training for module in fresh.features.modules())


def test_a_seed_trained_on_other_threads_is_trained_again(backbone_state, data, tmp_path):
    """One seed has all cores for itself, and rounding may depend on that."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        train_to_the_end(backbone_state, data, [0], tmp_path)
        train_to_the_end(backbone_state, data, [0, 1], tmp_path)
    finally:
        torch.set_num_threads(before)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.pt")) == [
        "cpu-1/seed0.pt",
        "cpu-1/seed1.pt",
        "cpu-2/seed0.pt",
    ]


def test_the_best_epoch_is_the_first_with_the_highest_validation_accuracy(backbone_state, data):
    run = make_run(backbone_state)
    for _ in range(6):
        advance_run(run, data)
    accuracies = [row["val_accuracy"] for row in run.history]
    assert run.best["epoch"] == int(np.argmax(accuracies)) + 1
    assert run.best["val_accuracy"] == max(accuracies)


def test_seeds_for_different_purposes_differ():
    assert len({derive_seed(s, e, p) for s in range(3) for e in range(15) for p in range(2)}) == 90
