import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.training.loop import Run
from stages.training.run_metrics import finish_runs, first_epoch_reaching, summarize_configuration, summarize_run
from tests.synthetic import make_model

COLUMNS = "epoch val_accuracy val_loss grad_norm grad_norm_max clip_fraction clip_coefficient".split()
ROWS = [
    (1, 0.60, 1.0, 3.0, 9.0, 1.0, 0.1),
    (2, 0.80, 0.7, 2.0, 4.0, 0.5, 0.7),
    (3, 0.82, 0.6, 1.0, 3.0, 0.0, 1.0),
    (4, 0.81, 0.8, 1.0, 2.0, 0.0, 1.0),
]
HISTORY = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]


def test_one_run():
    train, test, final = {"accuracy": 0.9}, {"accuracy": 0.83, "loss": 0.5}, {"accuracy": 0.825}
    metrics = summarize_run(HISTORY, 3, train, test, final)
    assert metrics == {
        "test_accuracy": 0.83,
        "val_accuracy": 0.82,
        "train_accuracy": 0.9,
        "test_loss": 0.5,
        "val_loss": 0.6,
        "final_test_accuracy": 0.825,
        "final_val_accuracy": 0.81,
        "best_epoch": 3,
        "epochs_to_95pct": 2,
        "grad_norm_mean": 1.75,
        "grad_norm_max": 9.0,
        "clip_fraction": 0.375,
        "clip_coefficient": pytest.approx(0.7),
        "generalization_gap": pytest.approx(0.07),
    }
    assert first_epoch_reaching(HISTORY, 1.0) == 3


def test_means_spread_and_each_seed():
    runs = {5: {"test_accuracy": 0.80, "grad_norm_max": 3.0}, 7: {"test_accuracy": 0.84, "grad_norm_max": 8.0}}
    metrics = summarize_configuration(runs)
    assert metrics["test_accuracy"] == pytest.approx(0.82)
    assert metrics["test_accuracy_std"] == pytest.approx(np.std([0.80, 0.84], ddof=1))
    assert metrics["grad_norm_max"] == 8.0 and metrics["seeds"] == 2
    assert (metrics["test_accuracy_seed5"], metrics["test_accuracy_seed7"]) == (0.80, 0.84)
    assert summarize_configuration({0: {"test_accuracy": 0.8}})["test_accuracy_std"] is None


def test_the_test_set_is_read_once_for_a_seed_and_everything_comes_of_that(backbone_state):
    """Probabilities, loss and accuracy of the selected weights and accuracy of the last, from one reading."""
    torch.manual_seed(0)
    labels = torch.arange(300) % 10
    inputs = torch.randn(300, 1, 1, 320).half() + 0.2 * F.one_hot(labels, 320)[:, None, None]
    last, selected = (make_model(backbone_state, "layernorm", seed=seed).eval() for seed in (0, 1))

    class Counted:
        reads = 0

        def split(self, size):
            Counted.reads += 1
            return inputs.split(size)

    run = Run(3, last, None, history=HISTORY, best={"epoch": 3, "state_dict": selected.state_dict()})
    expected = {name: model(inputs).detach().double() for name, model in (("last", last), ("selected", selected))}
    metrics, found = finish_runs([run], (inputs, labels), (Counted(), labels))
    assert Counted.reads == 1
    assert found.seeds.tolist() == [3] and found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities[0], F.softmax(expected["selected"], 1), rtol=1e-4, atol=1e-7)
    hits = {name: (logits.argmax(1) == labels).double().mean().item() for name, logits in expected.items()}
    assert (metrics[3]["test_accuracy"], metrics[3]["final_test_accuracy"]) == (hits["selected"], hits["last"])
    assert hits["selected"] != hits["last"]
    assert metrics[3]["test_loss"] == pytest.approx(F.cross_entropy(expected["selected"], labels).item())
    for name, value in selected.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value), name
